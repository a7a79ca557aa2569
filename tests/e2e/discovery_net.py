"""What discovery_test.py plays with: nodes of discovery_node.c, whose events are read. Their
namespaces and the bridge are those of every other script (tests/harness/netns.py)."""
import os
import select
import subprocess
import time


def now_ms():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000000


class Skip(Exception):
    pass


class Node:
    binary = None

    def __init__(self, space, number, *options, name=None):
        self.number = number
        self.name = f"{name or 'box%d' % number}-{number:02x}{number:02x}{number:02x}{number:02x}"
        self.events = []
        self.rest = b""
        self.process = subprocess.Popen(
            space.inside(Node.binary, "--id", str(number), "--name", name or f"box{number}",
                         "--port", str(7000 + number), *options),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        os.set_blocking(self.process.stdout.fileno(), False)
        self.wait(lambda e: e[0] == "START", 5000)
        self.start_ms = int(self.events[0][1])

    def read(self):
        try:
            data = os.read(self.process.stdout.fileno(), 65536)
        except BlockingIOError:
            return
        *lines, self.rest = (self.rest + data).split(b"\n")
        self.events += [line.decode().split(" ") for line in lines]

    def wait(self, matches, limit_ms, since=0):
        """The first event from number `since` on that matches, or None after limit_ms."""
        end = now_ms() + limit_ms
        while True:
            for event in self.events[since:]:
                if matches(event):
                    return event
            left = end - now_ms()
            if left <= 0:
                return None
            select.select([self.process.stdout], [], [], left / 1000)
            before = len(self.events)
            self.read()
            if len(self.events) == before:
                time.sleep(0.001)

    def sees(self, other, limit_ms=5000, since=0, **fields):
        def matches(event):
            return (event[0] == "PEER" and event[2] == other.name and
                    all(event[{"port": 3, "memory": 4, "interface": 5}[k]] == str(v)
                        for k, v in fields.items()))
        return self.wait(matches, limit_ms, since)

    def loses(self, other, limit_ms, since=0):
        return self.wait(lambda e: e[0] == "GONE" and e[2] == f"{other.number:02x}" * 4,
                         limit_ms, since)

    def tell(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        code = self.process.wait(10)
        self.process.stdin.close()
        self.process.stdout.close()
        assert code == 0, f"{self.name} ended with {code}"

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def mark(self):
        self.read()
        return len(self.events)


def expect(condition, words, *nodes):
    if not condition:
        for node in nodes:
            node.read()
            print(f"  {node.name}: {node.events}")
        raise AssertionError(words)


def stop_all(nodes):
    for node in nodes:
        if node.process.poll() is None:
            node.stop()

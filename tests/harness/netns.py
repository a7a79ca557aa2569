"""Real skein nodes in network namespaces, for tests.

A script calls enter_namespace() first: it runs itself again inside a network namespace of its own (as
root, or as a user who may make user namespaces) or ends with 77, which ctest shows as skipped. Then
Bridge(n) joins n further namespaces by veth pairs, and Node starts a `skein up` in one of them. Every
process is ended by its own id; nothing outside the namespaces is touched.
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

SKIPPED = 77
# Programs under a sanitizer are several times slower; limits that measure us are not stretched there
# but not judged either.
SLOW = float(os.environ.get("SKEIN_SLOW", "1"))


def now():
    return time.monotonic()


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)


def long_form():
    return "--long" in sys.argv or bool(os.environ.get("SKEIN_LONG"))


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIPPED)


def enter_namespace():
    if os.environ.get("SKEIN_IN_NAMESPACE"):
        return
    os.environ["SKEIN_IN_NAMESPACE"] = "1"
    for flags in (["-n", "-m"], ["-Urnm"]):
        if all(shutil.which(tool) for tool in ("unshare", "ip", "nsenter")) and \
                subprocess.run(["unshare", *flags, "sh", "-c",
                                "ip link add br0 type bridge && unshare -n true"],
                               stderr=subprocess.DEVNULL, check=False).returncode == 0:
            os.execvp("unshare", ["unshare", *flags, sys.executable, *sys.argv])
    skip("network namespaces need root, or user namespaces, and iproute2")


class Space:
    """A network namespace, alive as long as the process that holds it."""

    def __init__(self):
        self.holder = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo; exec cat"],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.holder.stdout.readline()
        self.pid = str(self.holder.pid)
        self.address = None

    def inside(self, *command):
        return ["nsenter", "-t", self.pid, "-n", *command]

    def ip(self, *words):
        run(*self.inside("ip", *words))

    def close(self):
        self.holder.stdin.close()
        self.holder.stdout.close()
        self.holder.wait()


class Bridge:
    """`n` namespaces, each with eth0 at 10.77.0.(i+1)/24 on one bridge."""

    def __init__(self, n):
        run("ip", "link", "add", "br0", "type", "bridge")
        run("ip", "link", "set", "br0", "up")
        self.spaces = [Space() for _ in range(n)]
        for i, space in enumerate(self.spaces):
            run("ip", "link", "add", f"port{i}", "type", "veth", "peer", "name", "eth0",
                "netns", space.pid)
            run("ip", "link", "set", f"port{i}", "master", "br0", "up")
            space.address = f"10.77.0.{i + 1}"
            space.ip("addr", "add", f"{space.address}/24", "dev", "eth0")
            space.ip("link", "set", "lo", "up")
            space.ip("link", "set", "eth0", "up")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for i, space in enumerate(self.spaces):
            run("ip", "link", "del", f"port{i}")
            space.close()
        run("ip", "link", "del", "br0")


class Node:
    """A `skein up` in a namespace. Its state folder lies below `folder` and outlives it."""

    binary = None

    def __init__(self, space, folder, name, *options, key=None, clean=True):
        self.space, self.name = space, name
        self.state = os.path.join(folder, name)
        self.key = key or os.path.join(folder, "cluster.key")
        if clean:
            shutil.rmtree(self.state, ignore_errors=True)
        os.makedirs(self.state, mode=0o700, exist_ok=True)
        self.output, self.log = [], []
        self.api = None
        self.started = now()
        self.process = subprocess.Popen(
            space.inside(self.binary, "up", "--name", name, "--state", self.state,
                         "--cluster-key", self.key, "--api", "127.0.0.1:8470",
                         "--threads", "1", "--log-level", "info", *options),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "HOME": folder, "XDG_CONFIG_HOME": folder})
        self.readers = [threading.Thread(target=self._read, args=pair, daemon=True)
                        for pair in ((self.process.stdout, self.output),
                                     (self.process.stderr, self.log))]
        for reader in self.readers:
            reader.start()

    @staticmethod
    def _read(pipe, lines):
        for line in pipe:
            lines.append(line.decode(errors="replace").rstrip("\n"))

    def text(self):
        return "\n".join(self.output + self.log)

    def ready(self, limit=20):
        end = now() + limit * SLOW
        while now() < end:
            if any(line.startswith("ready") for line in self.output):
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise AssertionError(f"{self.name} did not get ready:\n{self.text()}")

    def command(self, *words):
        return self.space.inside(self.binary, *words)

    def ask_json(self, *words):
        """The JSON of a client command at this node, or None while it does not answer."""
        done = subprocess.run(self.command(*words, "--json", "--api", "127.0.0.1:8470"),
                              stdin=subprocess.DEVNULL, capture_output=True, check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def alive_names(self):
        answer = self.ask_json("peers") or {"nodes": []}
        return {node["name"] for node in answer["nodes"] if node["state"] in ("self", "alive")}

    def get(self, path):
        """The JSON at a path of the node's API."""
        script = ("import sys, urllib.request as u; sys.stdout.buffer.write("
                  "u.urlopen('http://127.0.0.1:8470' + sys.argv[1], timeout=20).read())")
        done = subprocess.run(self.space.inside(sys.executable, "-c", script, path),
                              stdin=subprocess.DEVNULL, capture_output=True, check=True)
        return json.loads(done.stdout)

    def ready_stages(self):
        """(node, first layer, end) of each stage of the instance that is ready; [] for none."""
        for instance in self.get("/skein/instances")["instances"]:
            if instance["state"] == "ready":
                return [(s["node"], s["layer_begin"], s["layer_end"]) for s in instance["stages"]]
        return []

    def prompt(self, model, text, *options):
        return Answer(self.command("run", "--api", "127.0.0.1:8470", *options, model, text))

    def peak_bytes(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            return int(re.search(r"VmHWM:\s+(\d+) kB", status.read()).group(1)) * 1024

    def kill(self, number):
        self.process.send_signal(number)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                code = self.process.wait(15 * SLOW)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"{self.name} does not end on SIGTERM:\n{self.text()}") from None
            assert code == 0, f"{self.name} ended with {code}:\n{self.text()}"
        self.release()

    def release(self):
        """For a node that was killed."""
        self.process.wait()
        for reader in self.readers:
            reader.join()
        self.process.stdout.close()
        self.process.stderr.close()


class Answer:
    """A `skein run` under way: what came, when, and how it ended."""

    def __init__(self, command):
        self.began = now()
        self.first = None
        self.text = b""
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        while True:
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                return
            self.first = self.first or now()
            self.text += data

    def wait_text(self, n_bytes=1, limit=30):
        end = now() + limit * SLOW
        while len(self.text) < n_bytes and now() < end and self.process.poll() is None:
            time.sleep(0.002)
        assert len(self.text) >= n_bytes, f"only {self.text!r} came; {self.finish(1)}"

    def finish(self, limit=60):
        """(exit code, text, words on standard error)"""
        try:
            self.process.wait(limit * SLOW)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"no end after {limit} s; so far {self.text!r}") from None
        self.reader.join()
        words = self.process.stderr.read().decode(errors="replace")
        self.process.stdout.close()
        self.process.stderr.close()
        return self.process.returncode, self.text, words

    def good(self, limit=60):
        code, text, words = self.finish(limit)
        assert code == 0 and text, f"exit code {code}, text {text!r}: {words}"
        return text


def meet(nodes, limit=20):
    """Seconds from the last start until every node sees every other one."""
    names = {node.name for node in nodes}
    last = max(node.started for node in nodes)
    left = list(nodes)
    end = now() + limit * SLOW
    while left and now() < end:
        left = [node for node in left if node.alive_names() != names]
    assert not left, "\n".join(f"{n.name} sees {n.alive_names()}\n{n.text()}" for n in left)
    return now() - last


class Cluster:
    """Nodes that are ended whatever happens, with a temporary folder for their state."""

    def __init__(self, bridge):
        self.bridge = bridge
        self.folder = tempfile.mkdtemp(prefix="skein-test-")
        self.nodes = []

    def start(self, i, *options, name=None, **more):
        node = Node(self.bridge.spaces[i], self.folder, name or f"box{i + 1}", *options, **more)
        self.nodes.append(node)
        return node

    def __enter__(self):
        # One key for all, made before the first start.
        done = subprocess.run([Node.binary, "key", "--cluster-key",
                               os.path.join(self.folder, "cluster.key")],
                              stdin=subprocess.DEVNULL, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return self

    def __exit__(self, kind, *_):
        problems = []
        for node in self.nodes:
            try:
                if node.process.poll() is None:
                    node.stop()
            except AssertionError as problem:
                problems.append(str(problem))
        shutil.rmtree(self.folder, ignore_errors=True)
        if problems and kind is None:
            raise AssertionError("\n".join(problems))


def run_cases(cases):
    """Runs the cases, each on a bridge of three namespaces of its own, and exits."""
    failed = 0
    for case in cases:
        began = now()
        name = case.__name__
        try:
            with Bridge(3) as bridge, Cluster(bridge) as cluster:
                words = case(cluster)
            print(f"ok {name}: {words} ({now() - began:.1f} s)", flush=True)
        except AssertionError as problem:
            failed += 1
            print(f"FAILED {name}: {problem}", flush=True)
    sys.exit(1 if failed else 0)

#!/usr/bin/env python3
"""Discovery between real processes, in network namespaces made for it.

    discovery_test.py NODE [--rounds N] [--long] [--only CASE]

NODE is the program built from discovery_node.c. A bridge joins three namespaces by veth pairs, one
node each. Nothing outside the namespaces is touched: the script runs itself again inside one of its
own, as root or as a user who may make user namespaces, and is skipped (77) where neither is possible.
The short form takes under a minute; --long waits for records to expire and plays more rounds.
"""
import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "harness"))
from discovery_net import Node, Skip, expect, now_ms, stop_all  # noqa: E402
from netns import Bridge, Space, enter_namespace, run  # noqa: E402

SEEN_LIMIT_MS = 3000
GOODBYE_LIMIT_MS = 1000


def case_rounds(net, arguments):
    """Staggered starts: all see each other; goodbyes are heard."""
    chance = random.Random(arguments.seed)
    worst_seen = worst_gone = 0
    for number in range(arguments.rounds):
        nodes = []
        for i in chance.sample(range(3), 3):
            nodes.append(Node(net.spaces[i], i + 1))
            time.sleep(chance.choice([0, 0.02, 0.3 * chance.random()]))
        last_start = max(node.start_ms for node in nodes)
        for node in nodes:
            for other in nodes:
                if other is node:
                    continue
                event = node.sees(other, port=7000 + other.number)
                expect(event, f"round {number}: {node.name} never saw {other.name}", *nodes)
                worst_seen = max(worst_seen, int(event[1]) - last_start)
        leaver = nodes.pop(chance.randrange(3))
        stopped = now_ms()
        leaver.stop()
        for node in nodes:
            event = node.loses(leaver, 2000)
            expect(event, f"round {number}: {node.name} missed the goodbye", node)
            worst_gone = max(worst_gone, int(event[1]) - stopped)
        stop_all(nodes)
    expect(worst_seen <= SEEN_LIMIT_MS, f"worst time until all are seen: {worst_seen} ms")
    expect(worst_gone < GOODBYE_LIMIT_MS, f"worst time until a goodbye is heard: {worst_gone} ms")
    return (f"{arguments.rounds} rounds, all seen at worst {worst_seen} ms after the last start, "
            f"goodbye heard at worst after {worst_gone} ms")


def case_cold_links(net, _):
    """Links that came up this moment lose the first packets; all are seen in time nevertheless."""
    worst = 0
    for number in range(5):
        for i, space in enumerate(net.spaces):
            run("ip", "link", "set", f"port{i}", "down")
            space.ip("link", "set", "eth0", "down")
        for i, space in enumerate(net.spaces):
            run("ip", "link", "set", f"port{i}", "up")
            space.ip("link", "set", "eth0", "up")
        nodes = [Node(net.spaces[i], i + 1) for i in range(3)]
        last_start = max(node.start_ms for node in nodes)
        for node in nodes:
            for other in nodes:
                event = other is node or node.sees(other)
                expect(event, f"round {number}: {node.name} never saw {other.name}", *nodes)
                worst = max(worst, 0 if other is node else int(event[1]) - last_start)
        stop_all(nodes)
    expect(worst <= SEEN_LIMIT_MS, f"worst time until all are seen: {worst} ms")
    return f"5 rounds, all seen at worst {worst} ms after the last start"


def case_update(net, _):
    """Changed memory reaches the others; foreign clusters and versions are told once, apart."""
    a, b = Node(net.spaces[0], 1), Node(net.spaces[1], 2)
    stranger = Node(net.spaces[2], 3, "--cluster", "9")
    future = Node(net.spaces[2], 4, "--version", "2")
    expect(a.sees(b, memory=0), "not seen", a, b)
    for other in (stranger, future):
        expect(a.wait(lambda e, o=other: e[0] == "FOREIGN" and e[2] == o.name, 3000),
               "a foreign node was not told", a)
    told = now_ms()
    b.tell("memory 123456789")
    event = a.sees(b, 3000, memory=123456789)
    expect(event, "the changed memory was not told", a)
    time.sleep(1)
    a.read()
    for other in (stranger, future):
        expect(sum(e[0] == "FOREIGN" and e[2] == other.name for e in a.events) == 1,
               "a foreign node was told more than once", a)
        expect(not a.sees(other, 0), "a foreign node was told as a peer", a)
    expect(not a.sees(a, 0), "the node saw itself", a)
    stop_all([a, b, stranger, future])
    return f"changed after {int(event[1]) - told} ms"


def case_kill(net, _):
    """A killed node is gone soon after its link is doubted; a living one stays."""
    a, b, c = (Node(net.spaces[i], i + 1) for i in range(3))
    expect(a.sees(b) and a.sees(c), "not seen", a)
    b.kill()
    doubted = now_ms()
    a.tell("doubt 2")
    a.tell("doubt 3")
    event = a.loses(b, 5000)
    expect(event, "the killed node stayed", a)
    expect(not a.loses(c, 1000), "a living node was dropped", a)
    mark = a.mark()
    again = Node(net.spaces[1], 2)
    expect(a.sees(again, since=mark), "the node that came again was not seen", a)
    mark = a.mark()
    c.kill()
    c = Node(net.spaces[2], 3)
    expect(a.sees(c, since=mark), "a node killed and started again was not told anew", a)
    expect(not a.loses(c, 0, mark), "a node killed and started again went", a)
    stop_all([a, again, c])
    return f"gone {int(event[1]) - doubted} ms after the doubt"


def case_down_up(net, _):
    """An interface that goes and comes: told, forgotten, found again."""
    a, b = Node(net.spaces[0], 1), Node(net.spaces[1], 2)
    expect(a.sees(b) and b.sees(a), "not seen", a, b)
    mark = a.mark()
    net.spaces[0].ip("link", "set", "eth0", "down")
    expect(a.wait(lambda e: e[0] == "IF" and e[2:4] == ["eth0", "unusable"], 4000, mark),
           "the interface's end was not told", a)
    expect(a.loses(b, 1000, mark), "its peers were kept", a)
    mark, up = a.mark(), now_ms()
    net.spaces[0].ip("link", "set", "eth0", "up")
    event = a.sees(b, 5000, mark)
    expect(event, "not found again", a)
    c = Node(net.spaces[0], 3)
    expect(b.sees(c), "a node on the same box was not seen", b)
    expect(a.sees(c), "two nodes on one box do not see each other", a)
    mark = b.mark()
    net.spaces[0].ip("addr", "add", "10.77.0.101/24", "dev", "eth0")
    expect(b.wait(lambda e: e[0] == "PEER" and e[2] == a.name and "10.77.0.101" in e[6], 4000, mark),
           "a new address was not announced", b)
    expect(not b.loses(a, 0, mark), "a new address made the node go", b)
    net.spaces[0].ip("addr", "del", "10.77.0.101/24", "dev", "eth0")
    stop_all([a, b, c])
    return f"found again {int(event[1]) - up} ms after the link came back"


def case_loopback(_, arguments):
    """Two nodes of one namespace on lo; lo down is told with the way to bring it up."""
    space = Space()
    a = Node(space, 1, "--interface", "lo")
    expect(a.wait(lambda e: e[0] == "IF" and e[2:4] == ["lo", "unusable"] and "up)" in e, 2000),
           "lo being down was not told", a)
    space.ip("link", "set", "lo", "up")
    b = Node(space, 2, "--interface", "lo")
    first, second = a.sees(b, interface="lo"), b.sees(a, interface="lo")
    expect(first and second, "not seen", a, b)
    worst = max(int(first[1]), int(second[1])) - b.start_ms
    expect(worst <= SEEN_LIMIT_MS, f"seen after {worst} ms")
    stop_all([a, b])
    space.close()
    return f"seen after {worst} ms"


def case_broken_interface(net, _):
    """Interfaces that cannot be used are told once each and silence no other."""
    space = net.spaces[0]
    for name in ("bare", "stuck", "shut"):
        space.ip("link", "add", name + "0", "type", "veth", "peer", "name", name + "1")
        space.ip("link", "set", name + "0", "addrgenmode", "none")
        space.ip("link", "set", name + "0", "up")
        space.ip("link", "set", name + "1", "up")
    space.ip("link", "add", "dumb0", "type", "veth", "peer", "name", "dumb1")
    space.ip("addr", "add", "10.78.0.1/24", "dev", "dumb0")
    space.ip("link", "set", "dumb0", "up")
    space.ip("addr", "add", "10.79.0.1/24", "dev", "stuck0")
    stuck = subprocess.run(
        space.inside("tc", "qdisc", "add", "dev", "stuck0", "root", "tbf", "rate", "8bit",
                     "burst", "2000", "limit", "1000000"),
        stderr=subprocess.DEVNULL, check=False).returncode == 0
    space.ip("addr", "add", "10.81.0.1/24", "dev", "shut0")
    shut = ("src", "0.0.0.0/0", "dst", "224.0.0.251/32", "dev", "shut0", "dir", "out")
    blocked = subprocess.run(space.inside("ip", "xfrm", "policy", "add", *shut, "action", "block"),
                             stderr=subprocess.DEVNULL, check=False).returncode == 0
    names = ["shut0", "bare0", "dumb0", "nosuch0", "stuck0", "eth0"]
    a = Node(space, 1, *(word for name in names for word in ("--interface", name)))
    b = Node(net.spaces[1], 2)
    expect(a.sees(b) and b.sees(a), "a broken interface silenced the good one", a, b)
    time.sleep(5)
    a.read()
    broken = [("bare0", "address"), ("dumb0", "carrier"), ("nosuch0", "no")]
    for name, word in broken + ([("shut0", "forbidden")] if blocked else []):
        told = [e for e in a.events if e[0] == "IF" and e[2] == name]
        expect(len(told) == 1 and told[0][3] == "unusable" and word in told[0],
               f"{name} was told {len(told)} times", a)
    expect(not a.loses(b, 0), "lost over a broken interface", a)
    mark = a.mark()
    space.ip("addr", "add", "10.80.0.1/24", "dev", "bare0")
    expect(a.wait(lambda e: e[0] == "IF" and e[2:4] == ["bare0", "usable"], 4000, mark),
           "a mended interface was not used", a)
    if blocked:
        space.ip("xfrm", "policy", "del", *shut)
        expect(a.wait(lambda e: e[0] == "IF" and e[2:4] == ["shut0", "usable"], 4000, mark),
               "an interface that is no longer blocked was not used", a)
    stop_all([a, b])
    for name in ("bare0", "dumb0", "stuck0", "shut0"):
        space.ip("link", "del", name)
    parts = (["a full queue"] if stuck else []) + (["a forbidden interface"] if blocked else [])
    return "with " + " and ".join(parts) if parts else "without tbf and xfrm, which are missing here"


def case_ipv6(net, _):
    """Without any IPv4 address, over link-local IPv6."""
    for i, space in enumerate(net.spaces):
        space.ip("addr", "del", f"10.77.0.{i + 1}/24", "dev", "eth0")
    a, b = Node(net.spaces[0], 1), Node(net.spaces[1], 2)
    event = a.sees(b, 5000)
    if not event and not any(e[2:4] == ["eth0", "usable"] for e in a.events):
        raise Skip("no IPv6 here")
    expect(event and b.sees(a), "not seen", a, b)
    expect(event[6].startswith("fe80::"), f"address {event[6]}")
    expect(not a.wait(lambda e: e[0] == "IF" and e[3] == "unusable", 0), "told as unusable", a)
    stop_all([a, b])
    return f"seen after {int(event[1]) - b.start_ms} ms"


FLOOD = r"""
import random, socket, struct, sys, time
def name(*labels):
    return b"".join(bytes([len(x)]) + x for x in labels) + b"\0"
def record(owner, kind, data, ttl=120):
    return owner + struct.pack(">HHIH", kind, 1, ttl, len(data)) + data
chance = random.Random(1)
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("10.77.0.3"))
out.bind(("10.77.0.3", 5353))
service = name(b"_skein", b"_tcp", b"local")
end, sent = time.monotonic() + float(sys.argv[1]), 0
while time.monotonic() < end:
    for _ in range(200):
        kind = sent % 4
        if kind == 0:  # a node of another cluster
            word = b"n-%08x" % sent
            it, host = name(word, b"_skein", b"_tcp", b"local"), name(word, b"local")
            text = b"".join(bytes([len(x)]) + x for x in (
                b"id=" + b"%064x" % sent, b"cl=" + b"f" * 16, b"v=1"))
            answers = [record(service, 12, it), record(it, 33, struct.pack(">HHH", 0, 0, 9) + host),
                       record(it, 16, text), record(host, 1, b"\x0a\x4d\0\x09")]
            data = struct.pack(">HHHHHH", 0, 0x8400, 0, len(answers), 0, 0) + b"".join(answers)
        elif kind == 1:  # many names of nothing
            answers = [record(service, 12, name(b"x-%08x" % (sent * 60 + i), b"_skein", b"_tcp",
                                                b"local")) for i in range(60)]
            data = struct.pack(">HHHHHH", 0, 0x8400, 0, len(answers), 0, 0) + b"".join(answers)
        elif kind == 2:  # a question for all
            data = struct.pack(">HHHHHH", 0, 0, 1, 0, 0, 0) + service + b"\0\x0c\0\1"
        else:
            data = chance.randbytes(chance.randrange(1400))
        try:
            out.sendto(data, ("224.0.0.251", 5353))
        except OSError:
            pass
        sent += 1
print(sent)
"""


def process_numbers(pid):
    """Resident bytes and processor seconds."""
    with open(f"/proc/{pid}/statm") as f:
        resident = int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return resident, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def case_flood(net, _):
    """Made-up nodes, names and garbage as fast as they can be sent: bounded memory, and it goes on."""
    a, b = Node(net.spaces[0], 1), Node(net.spaces[1], 2)
    expect(a.sees(b) and b.sees(a), "not seen", a, b)
    seconds = 3
    resident, spent = process_numbers(a.process.pid)
    flood = subprocess.run(net.spaces[2].inside(sys.executable, "-c", FLOOD, str(seconds)),
                           stdout=subprocess.PIPE, check=True)
    resident_after, spent_after = process_numbers(a.process.pid)
    grown, busy = resident_after - resident, (spent_after - spent) / seconds
    a.read()
    foreign = sum(e[0] == "FOREIGN" for e in a.events)
    expect(0 < foreign <= 30, f"{foreign} foreign nodes were told", a)
    expect(grown < 8 << 20, f"{grown} bytes more resident")
    expect(not a.loses(b, 0), "the flood pushed a node out", a)
    mark = a.mark()
    stopped = now_ms()
    b.stop()
    event = a.loses(b, 2000, mark)
    expect(event and int(event[1]) - stopped < GOODBYE_LIMIT_MS, "goodbye missed after the flood", a)
    a.stop()
    return (f"{int(flood.stdout) // seconds} packets a second: {busy:.0%} of one core, "
            f"{grown >> 10} KiB more")


AVAHI_CONFIG = """[server]
host-name=avahibox
use-ipv4=yes
use-ipv6=no
enable-dbus={dbus}
[publish]
publish-workstation=no
[wide-area]
enable-wide-area=no
"""

BUS_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>custom</type><listen>{address}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow receive_sender="*"/>
<allow own="*"/><allow user="*"/></policy></busconfig>
"""


def browse(space, environment):
    """What avahi knows of _skein._tcp: {name: (host, address, port, text)}."""
    text = subprocess.run(space.inside("avahi-browse", "-rtp", "_skein._tcp"), env=environment,
                          stdout=subprocess.PIPE, timeout=20, check=False).stdout.decode()
    found = {}
    for line in text.splitlines():
        fields = line.split(";")
        if fields[0] == "=":
            found[fields[3]] = (fields[6], fields[7], fields[8], ";".join(fields[9:]))
    return found


def case_avahi(net, _):
    """Beside avahi-daemon on port 5353: both work, and avahi shows our nodes rightly."""
    daemon = shutil.which("avahi-daemon") or shutil.which("avahi-daemon", path="/usr/sbin")
    if not daemon:
        raise Skip("avahi-daemon is not installed")
    with_bus = shutil.which("dbus-daemon") and shutil.which("avahi-browse")
    space = net.spaces[0]
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        address = f"unix:path={folder}/bus"
        with open(f"{folder}/avahi.conf", "w") as f:
            f.write(AVAHI_CONFIG.format(dbus="yes" if with_bus else "no"))
        with open(f"{folder}/bus.conf", "w") as f:
            f.write(BUS_CONFIG.format(address=address))
        environment = dict(os.environ, DBUS_SYSTEM_BUS_ADDRESS=address)
        started = []
        try:
            if with_bus:
                started.append(subprocess.Popen(
                    ["dbus-daemon", "--nofork", "--nopidfile", f"--config-file={folder}/bus.conf"],
                    stderr=subprocess.DEVNULL))
                for _ in range(100):
                    if os.path.exists(f"{folder}/bus"):
                        break
                    time.sleep(0.02)
            # a /run of its own, for its pid file
            started.append(subprocess.Popen(
                space.inside("unshare", "-m", "sh", "-c",
                             "mount -t tmpfs none /run && exec \"$0\" -f \"$1\" --no-drop-root "
                             "--no-chroot --no-rlimits", daemon, f"{folder}/avahi.conf"),
                env=environment, stderr=subprocess.PIPE))
            os.set_blocking(started[-1].stderr.fileno(), False)
            time.sleep(1.5)
            if started[-1].poll() is not None:
                raise Skip("avahi-daemon does not run here: " +
                           (started[-1].stderr.read() or b"").decode()[-200:])
            a, b = Node(space, 1), Node(net.spaces[1], 2)
            expect(a.sees(b) and b.sees(a), "not seen beside avahi", a, b)
            if with_bus:
                found = browse(space, environment)
                for node, address in ((a, "10.77.0.1"), (b, "10.77.0.2")):
                    host, at, port, text = found.get(node.name, (None,) * 4)
                    expect((host, at, port) == (node.name + ".local", address,
                                                str(7000 + node.number)) and
                           f'"id={node.number:02x}{node.number:02x}' in text and '"v=1"' in text,
                           f"avahi shows {found}")
                b.tell("memory 4242")
                expect(a.sees(b, 3000, memory=4242), "not updated", a)
                text = browse(space, environment)[b.name][3]
                expect('"mem=4242"' in text and '"mem=0"' not in text, f"avahi shows {text}")
            b.stop()
            expect(a.loses(b, 2000), "the goodbye was missed beside avahi", a)
            if with_bus:
                time.sleep(1.5)  # it keeps what said goodbye for a second, as it should
                expect(b.name not in browse(space, environment), "avahi missed the goodbye")
            a.stop()
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait()
    return "avahi-browse shows both nodes" if with_bus else "without avahi-browse or dbus-daemon"


def case_expiry(net, arguments):
    """A killed node's records expire; living nodes are asked in time and never go."""
    if not arguments.long:
        raise Skip("only with --long: it takes two and a half minutes")
    a, b, c = (Node(net.spaces[i], i + 1) for i in range(3))
    expect(a.sees(b) and a.sees(c), "not seen", a)
    b.kill()
    killed = now_ms()
    event = a.loses(b, 130000)
    expect(event, "the killed node never expired", a)
    time.sleep(max(0, 150 - (now_ms() - killed) / 1000))
    expect(not a.loses(c, 0) and not c.loses(a, 0), "a living node flapped", a, c)
    stop_all([a, c])
    return f"expired after {(int(event[1]) - killed) / 1000:.0f} s"


CASES = [case_rounds, case_cold_links, case_update, case_kill, case_down_up, case_loopback,
         case_broken_interface, case_ipv6, case_flood, case_avahi, case_expiry]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("node")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--only")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    enter_namespace()
    Node.binary = os.path.abspath(arguments.node)
    if arguments.long:
        arguments.rounds *= 5
    failed = 0
    for case in CASES:
        name = case.__name__[len("case_"):]
        if arguments.only and not re.fullmatch(arguments.only, name):
            continue
        began = now_ms()
        try:
            with Bridge(3) as net:
                words = case(net, arguments)
            print(f"ok {name}: {words} ({(now_ms() - began) / 1000:.1f} s)", flush=True)
        except Skip as reason:
            print(f"skipped {name}: {reason}", flush=True)
        except AssertionError as problem:
            failed += 1
            print(f"FAILED {name}: {problem}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

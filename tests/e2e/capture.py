#!/usr/bin/env python3
"""Nothing in clear on the wire, and strangers are refused by name.

    capture.py SKEIN

Every frame on the bridge is recorded while three nodes, none of which holds the model alone, answer
prompts. Between nodes there is TCP on the mesh ports and mDNS, nothing else. The recorded bytes hold
neither prompt nor answer, in whole or in words, and the streams look random: every byte value about
equally often, no float pattern of activations (in clear these have a byte in four, sign and exponent,
that takes few values). Then a node with another cluster key: it meets nobody, and both sides say so.
"""
import collections
import math
import os
import re
import select
import socket
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "harness"))
from netns import SLOW, Node, enter_namespace, meet, now, run_cases  # noqa: E402

PROMPT = "My secret word is Xylophonist-48151623"
SHARE = ("--memory", "13M", "--context", "256")
ETH_P_ALL = 3
SO_RCVBUFFORCE = 33


class Capture:
    """Frames of the bridge, by a packet socket: no tool is needed."""

    def __init__(self):
        # On the bridge's ports: the bridge itself hands up only what is meant for it.
        self.ports = []
        for i in range(3):
            port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            port.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
            port.bind((f"port{i}", 0))
            self.ports.append(port)
        self.frames = []
        self.stopped = threading.Event()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        while not self.stopped.is_set():
            for port in select.select(self.ports, [], [], 0.1)[0]:
                frame, address = port.recvfrom(65536)
                if address[2] != socket.PACKET_OUTGOING:
                    self.frames.append(frame)

    def stop(self):
        time.sleep(0.3)
        self.stopped.set()
        self.reader.join()
        for port in self.ports:
            port.close()
        return self.frames


def ip_payload(frame):
    """(protocol, source, destination, payload) of an IPv4 or IPv6 frame, else None."""
    kind = struct.unpack_from("!H", frame, 12)[0]
    if kind == 0x0800:
        size = (frame[14] & 15) * 4
        total = struct.unpack_from("!H", frame, 16)[0]
        return frame[23], frame[26:30], frame[30:34], frame[14 + size:14 + total]
    if kind == 0x86dd:
        length = struct.unpack_from("!H", frame, 18)[0]
        return frame[20], frame[22:38], frame[38:54], frame[54:54 + length]
    return None


def streams_of(frames):
    """TCP payload by direction, in order of sequence numbers; and what else there was."""
    pieces, others = collections.defaultdict(dict), collections.Counter()
    for frame in frames:
        packet = ip_payload(frame)
        if packet is None:
            others["arp" if frame[12:14] == b"\x08\x06" else "other"] += 1
            continue
        protocol, source, destination, payload = packet
        if protocol == 6:
            ports = struct.unpack_from("!HH", payload)
            sequence = struct.unpack_from("!I", payload, 4)[0]
            data = payload[(payload[12] >> 4) * 4:]
            if data:
                pieces[(source, ports[0], destination, ports[1])][sequence] = data
        elif protocol == 17:
            others[f"udp to {struct.unpack_from('!H', payload, 2)[0]}"] += 1
        else:
            others[{1: "icmp", 2: "igmp", 58: "icmp6", 0: "icmp6"}.get(protocol, protocol)] += 1
    return {key: b"".join(parts[s] for s in sorted(parts)) for key, parts in pieces.items()}, others


def entropy_bits(data):
    n = len(data)
    return -sum(c / n * math.log2(c / n) for c in collections.Counter(data).values())


def looks_random(data):
    """Chi-squared over byte values, for the whole and for each place in four: for random bytes it is
    255 with a deviation of 22.6."""
    for part in (data, *(data[i::4] for i in range(4))):
        counts = collections.Counter(part)
        expected = len(part) / 256
        chi = sum((counts.get(b, 0) - expected) ** 2 / expected for b in range(256))
        if expected >= 5 and not 100 < chi < 500:
            return False
    return True


def nothing_in_clear(cluster):
    capture = Capture()
    nodes = [cluster.start(i, *SHARE) for i in range(3)]
    for node in nodes:
        node.ready()
    meet(nodes)
    answers = [node.prompt("tiny", PROMPT, "--max-tokens", "40", "--seed", str(i)).good()
               for i, node in enumerate(nodes)]
    stages = max(len(node.ready_stages()) for node in nodes)
    assert stages > 1, "the model was not split"
    for node in nodes:
        node.stop()
    frames = capture.stop()
    streams, others = streams_of(frames)
    total = sum(map(len, streams.values()))
    assert total > 50000, f"only {total} bytes were seen"
    known = {"arp", "igmp", "icmp6", "udp to 5353"}
    assert set(others) <= known, f"unexpected traffic: {others}"
    wire = b"".join(frames)
    secrets = {PROMPT.encode()} | set(re.findall(rb"[A-Za-z0-9]{6,}", PROMPT.encode()))
    for answer in answers:
        secrets |= {answer[i:i + 8] for i in range(0, max(1, len(answer) - 8))}
    secrets |= {b"user", b"assistant", b"<|im_start|>", b"choices"}
    found = [secret for secret in secrets if len(secret) >= 6 and secret in wire]
    assert not found, f"in clear: {found}"
    for key, data in streams.items():
        body = data[512:]  # the handshake's lengths come first
        if len(body) < 4096:
            continue
        assert looks_random(body), f"a stream of {len(body)} bytes from port {key[1]} is not random"
    body = b"".join(data[512:] for data in streams.values())
    assert entropy_bits(body) > 7.99, f"{entropy_bits(body):.4f} bits per byte"
    return (f"{len(frames)} frames, {total} bytes of TCP in {len(streams)} streams over {stages} "
            f"stages, {entropy_bits(body):.4f} bits per byte")


def stranger_refused(cluster):
    nodes = [cluster.start(i) for i in range(2)]
    other_key = os.path.join(cluster.folder, "other.key")
    subprocess.run([Node.binary, "key", "--cluster-key", other_key], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for node in nodes:
        node.ready()
    port = re.search(r"nodes connect to port (\d+)", nodes[0].text()).group(1)
    stranger = cluster.start(2, "--peer", f"10.77.0.1:{port}", name="stranger", key=other_key)
    stranger.ready()
    pattern = re.compile(r"key|cluster|refus|authenti", re.IGNORECASE)

    end = now() + 8 * SLOW
    own = len(stranger.output)
    while now() < end:
        told = [line for line in nodes[0].output + nodes[0].log
                if pattern.search(line) and re.search(r"10\.77\.0\.3|stranger", line)]
        heard = [line for line in stranger.output[own:] + stranger.log
                 if pattern.search(line) and re.search(r"10\.77\.0\.1|box1", line)]
        if told and heard:
            break
        time.sleep(0.1)
    assert told, f"box1 says nothing of the stranger:\n{nodes[0].text()}"
    assert heard, f"the stranger says nothing of box1:\n{stranger.text()}"
    assert stranger.alive_names() == {"stranger"}, stranger.alive_names()
    assert "stranger" not in nodes[0].alive_names() | nodes[1].alive_names()
    return f"box1: {told[0]!r}; stranger: {heard[0]!r}"


if __name__ == "__main__":
    enter_namespace()
    Node.binary = os.path.abspath(sys.argv[1])
    run_cases([nothing_in_clear, stranger_refused])

#!/usr/bin/env python3
"""What no box can hold alone, three hold together, and each holds only its share.

    memory.py SKEIN MAKE_GGUF

A model of random weights, about 200 MB. With --memory below that, the model is split over all three;
then the peak resident memory of each node is at most its shard + KV + 64 MB, where shard and KV are
counted from the file and the plan here, not asked of the program. With too little in all the request
fails at once and its words have the numbers. Who is told of --mapped and starts the node with it gets an
answer, and the node's private memory is its KV + 64 MB.
"""
import os
import re
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "harness"))
from netns import Node, enter_namespace, meet, now, run_cases  # noqa: E402

SHAPE = {"layers": 24, "embd": 1024, "heads": 16, "kv-heads": 8, "head-dim": 64, "ffn": 4096,
         "vocab": 16384}
CONTEXT = 512
SLACK = 64 << 20
model_path = None


def tensor_bytes(path):
    """{layer or None: bytes} by the file's own table."""
    with open(path, "rb") as file:
        data = file.read(8 << 20)
    at = 4

    def number(form):
        nonlocal at
        value = struct.unpack_from("<" + form, data, at)[0]
        at += struct.calcsize("<" + form)
        return value

    def text():
        nonlocal at
        n = number("Q")
        at += n
        return data[at - n:at].decode()

    def skip(kind):
        if kind == 8:
            text()
        elif kind == 9:
            inner, n = number("I"), number("Q")
            for _ in range(n):
                skip(inner)
        else:
            number({0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q",
                    11: "q", 12: "d"}[kind])

    number("I")
    n_tensors, n_keys = number("Q"), number("Q")
    for _ in range(n_keys):
        text()
        skip(number("I"))
    offsets = []
    for _ in range(n_tensors):
        name = text()
        for _ in range(number("I")):
            number("Q")
        number("I")
        offsets.append((number("Q"), name))
    start = (at + 31) // 32 * 32
    offsets.sort()
    sizes = {}
    for (offset, name), (end, _) in zip(offsets,
                                        offsets[1:] + [(os.path.getsize(path) - start, "")]):
        match = re.match(r"blk\.(\d+)\.", name)
        layer = int(match.group(1)) if match else None
        sizes[layer] = sizes.get(layer, 0) + end - offset
    return sizes


def start_three(cluster, memory):
    nodes = [cluster.start(i, "--model", model_path, "--memory", memory, "--context",
                           str(CONTEXT)) for i in range(3)]
    for node in nodes:
        node.ready()
    meet(nodes)
    return nodes


def name_of():
    return os.path.splitext(os.path.basename(model_path))[0]


def split_by_need(cluster):
    sizes = tensor_bytes(model_path)
    total = sum(sizes.values())
    per_token = 2 * SHAPE["kv-heads"] * SHAPE["head-dim"] * 4
    nodes = start_three(cluster, f"{int(total * 0.7) >> 20}M")
    nodes[0].prompt(name_of(), "w300 w301 w302", "--raw", "--max-tokens", "32",
                    "--seed", "3").good(120)
    stages = nodes[0].ready_stages()
    assert len(stages) == 3, f"stages: {stages}"
    peaks, good = [], True
    for name, begin, end in stages:
        node = next(node for node in nodes if node.name == name)
        shard = sum(sizes[layer] for layer in range(begin, end))
        shard += sizes[None] if begin == 0 else 0
        allowed = shard + (end - begin) * per_token * CONTEXT + SLACK
        peak = node.peak_bytes()
        peaks.append(f"{name} layers {begin}-{end - 1}: {peak >> 20} of {allowed >> 20} MB")
        good = good and peak <= allowed
    assert good, "; ".join(peaks)
    return f"model of {total >> 20} MB; " + "; ".join(peaks)


def too_little_in_all(cluster):
    nodes = start_three(cluster, "40M")
    began = now()
    code, _, words = nodes[1].prompt(name_of(), "w300", "--raw").finish(20)
    took = now() - began
    assert code == 69, f"exit code {code}: {words}"
    assert took < 5, f"{took:.1f} s"
    assert len(re.findall(r"\d+(?:\.\d+)? [KMG]B", words)) >= 2, f"no numbers in: {words}"
    assert len(words.strip().splitlines()) == 1, words
    return f"after {took:.2f} s: {words.strip()}"


def from_the_file(cluster):
    options = ["--model", model_path, "--memory", "100M", "--context", str(CONTEXT)]
    node = cluster.start(0, *options)
    node.ready()
    code, _, words = node.prompt(name_of(), "w300", "--raw").finish(20)
    assert code == 69 and "--mapped" in words, f"exit code {code}: {words}"
    node.stop()
    node = cluster.start(1, *options, "--mapped")
    node.ready()
    node.prompt(name_of(), "w300 w301 w302", "--raw", "--max-tokens", "8", "--seed", "3").good(120)
    with open(f"/proc/{node.process.pid}/status", encoding="ascii") as file:
        private = int(re.search(r"RssAnon:\s+(\d+) kB", file.read()).group(1)) << 10
    kv = SHAPE["layers"] * 2 * SHAPE["kv-heads"] * SHAPE["head-dim"] * 4 * CONTEXT
    assert private <= kv + SLACK, f"{private >> 20} MB private, KV {kv >> 20} MB"
    return f"{private >> 20} MB private, KV {kv >> 20} MB"


def main():
    global model_path
    enter_namespace()
    Node.binary = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="skein-test-") as folder:
        model_path = os.path.join(folder, "random.gguf")
        words = [word for key, value in SHAPE.items() for word in (f"--{key}", str(value))]
        subprocess.run([sys.argv[2], *words, "--tied", "yes", "--type", "Q4_0", "--out",
                        model_path], check=True)
        run_cases([split_by_need, too_little_in_all, from_the_file])


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""`skein run` on the demo model says what the reference says.

    golden.py SKEIN

Raw prompts of tests/data/golden.json, greedy, through a node and its API: the answer's text is the
text of the recorded tokens up to their end.
"""
import json
import os
import subprocess
import sys
import tempfile

SKEIN = os.path.abspath(sys.argv[1])
GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "golden.json")


def environment(folder):
    return {**os.environ, "HOME": folder, "XDG_STATE_HOME": folder, "XDG_CONFIG_HOME": folder,
            "XDG_CACHE_HOME": folder}


def skein(folder, *words, text=None):
    done = subprocess.run([SKEIN, *words], input=text, capture_output=True, check=False,
                          env=environment(folder))
    assert done.returncode == 0, f"{words}: {done.stderr.decode()}"
    return done.stdout


def node_of(folder):
    """A node by itself, and its API's address."""
    node = subprocess.Popen([SKEIN, "up", "--no-discovery", "--api", "127.0.0.1:0", "--state",
                             os.path.join(folder, "node")], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, text=True, env=environment(folder))
    for line in node.stdout:
        if line.startswith("API at http://"):
            return node, line.split("//")[1].strip()
    raise AssertionError(f"the node ended with {node.wait()}")


def judge(folder, api, golden):
    failed = 0
    for item in golden["items"]:
        if item["kind"] != "raw":
            continue
        ids = item["greedy_ids"]
        ids = ids[:item["end_at"]] if item["end_at"] is not None else ids
        wanted = skein(folder, "inspect", "text", "tiny", text=json.dumps(ids).encode())
        words = skein(folder, "run", "--raw", "--quiet", "--temperature", "0", "--max-tokens",
                      str(len(ids)), "--api", api, "tiny", item["prompt"])
        if words.rstrip(b"\n") != wanted.rstrip(b"\n"):
            failed += 1
            print(f"FAILED {item['prompt']!r}:\n  {words!r}\n  {wanted!r}")
    return failed


def main():
    with open(GOLDEN, encoding="utf-8") as file:
        golden = json.load(file)
    with tempfile.TemporaryDirectory(prefix="skein-test-") as folder:
        node, api = node_of(folder)
        try:
            failed = judge(folder, api, golden)
        finally:
            node.terminate()
            node.stdout.close()
            assert node.wait(20) == 0
    print("FAILED" if failed else "ok")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

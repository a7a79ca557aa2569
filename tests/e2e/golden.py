#!/usr/bin/env python3
"""`skein run` on the demo model says what the reference says.

    golden.py SKEIN

Raw prompts of tests/data/golden.json, greedy, through a node and its API: the answer's text is the
text of the recorded tokens, up to where the two best logits are too close to call.
"""
import json
import os
import subprocess
import sys
import tempfile

SKEIN = os.path.abspath(sys.argv[1])
GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "golden.json")


def skein(folder, *words, text=None):
    done = subprocess.run([SKEIN, *words], input=text, capture_output=True, check=False,
                          env={**os.environ, "HOME": folder, "XDG_STATE_HOME": folder,
                               "XDG_CONFIG_HOME": folder, "XDG_CACHE_HOME": folder})
    assert done.returncode == 0, f"{words}: {done.stderr.decode()}"
    return done.stdout


def main():
    with open(GOLDEN, encoding="utf-8") as file:
        golden = json.load(file)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="skein-test-") as folder:
        for item in golden["items"]:
            if item["kind"] != "raw":
                continue
            ids = item["greedy_ids"]
            ids = ids[:item["end_at"]] if item["end_at"] is not None else ids
            wanted = skein(folder, "inspect", "text", "tiny", text=json.dumps(ids).encode())
            words = skein(folder, "run", "--raw", "--quiet", "--temperature", "0", "--max-tokens",
                          str(len(ids)), "--api", "127.0.0.1:1", "tiny", item["prompt"])
            if words.rstrip(b"\n") != wanted.rstrip(b"\n"):
                failed += 1
                print(f"FAILED {item['prompt']!r}:\n  {words!r}\n  {wanted!r}")
    assert failed == 0
    print("ok")


if __name__ == "__main__":
    main()

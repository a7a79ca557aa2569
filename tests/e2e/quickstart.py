#!/usr/bin/env python3
"""The demo does what the README promises.

    quickstart.py DEMO SKEIN

It ends well within 10 s with discovery, a plan over three nodes, an answer and its speed, and leaves no
process and no file. A failing node makes it fail, with its log, and again nothing is left.
"""
import os
import re
import subprocess
import sys
import tempfile
import time

DEMO, SKEIN = map(os.path.abspath, sys.argv[1:3])


def demo(folder, binary, **environment):
    began = time.monotonic()
    done = subprocess.run([DEMO, binary], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False, env={**os.environ, "TMPDIR": folder, **environment})
    assert not os.listdir(folder), f"left behind: {os.listdir(folder)}"
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
                assert folder not in file.read(), f"process {pid} is left"
        except OSError:
            continue
    return done.returncode, done.stdout + done.stderr, time.monotonic() - began


def main():
    with tempfile.TemporaryDirectory(prefix="skein-test-") as folder:
        code, words, seconds = demo(folder, SKEIN)
        assert code == 0, words
        assert seconds < 10, f"{seconds:.1f} s"
        for pattern in (r"goose-1.*goose-2.*goose-3", r"skein plan", r"tokens/s", r"3 stages"):
            assert re.search(pattern, words, re.S), f"no {pattern!r} in:\n{words}"
        print(f"demo: {seconds:.1f} s")
        code, words, _ = demo(folder, SKEIN, SKEIN_DEMO_MEMORY="1K")
        assert code != 0, f"a node without memory went unnoticed:\n{words}"
    print("ok")


if __name__ == "__main__":
    main()

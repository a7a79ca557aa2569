#!/usr/bin/env python3
"""The automatic choice of an engine on a processor without the instruction sets of native.

    old_processor.py SKEIN

Runs the program under qemu-user as a processor of 2008: the automatic choice is openblas and says so in
one line, a forced engine is taken without a word, and both give finite numbers. Skipped on other
machines than x86-64 and where qemu-user is not there or cannot run the program.
"""
import os
import platform
import shutil
import subprocess
import sys
import tempfile

DEMO = os.path.join(os.path.dirname(__file__), "..", "..", "engine", "demo", "skein-tiny.gguf")
SKIP = 77
NOTICE = "openblas is taken"


def logits(skein, folder, *options):
    """What is said on standard error, and the bytes of the logits."""
    tokens, out = os.path.join(folder, "ids.json"), os.path.join(folder, "out")
    with open(tokens, "w", encoding="ascii") as file:
        file.write("[1, 2, 3]")
    done = subprocess.run(["qemu-x86_64", "-cpu", "Nehalem", skein, "inspect", "logits", DEMO,
                           "--tokens", tokens, "--out", out, *options],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=240, check=False)
    if done.returncode != 0:
        sys.exit(f"{options}: exit {done.returncode}: {done.stderr}")
    with open(out, "rb") as file:
        return done.stderr, file.read()


def main():
    skein = sys.argv[1]
    if platform.machine() != "x86_64" or not shutil.which("qemu-x86_64"):
        print("skipped: needs qemu-user on x86-64")
        sys.exit(SKIP)
    with tempfile.TemporaryDirectory() as folder:
        said, automatic = logits(skein, folder)
        if said.count(NOTICE) != 1:
            sys.exit(f"the choice of openblas was to be said once: {said!r}")
        said, forced = logits(skein, folder, "--engine", "openblas")
        if NOTICE in said or forced != automatic:
            sys.exit(f"openblas by force differs from the automatic choice: {said!r}")
        said, native = logits(skein, folder, "--engine", "native")
        if NOTICE in said or native == automatic or len(native) != len(automatic):
            sys.exit(f"native by force was not native: {said!r}")
    print("automatic: openblas, said once; forced: as forced")


if __name__ == "__main__":
    main()

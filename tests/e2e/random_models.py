#!/usr/bin/env python3
"""Models of random weights, in every tensor type, give finite logits, alike on both engines.

    random_models.py SKEIN MAKE_GGUF

The engines share no arithmetic: `native` multiplies quantised blocks, `openblas` dequantises all. Where
activations are rounded to int8 the normalised error is about 1e-3; anything of another size is a fault in
one of them, or in how make_gguf packs a format.
"""
import array
import json
import math
import os
import subprocess
import sys
import tempfile

SKEIN, MAKE_GGUF = map(os.path.abspath, sys.argv[1:3])
VOCAB = 512
SHAPE = ("--layers", "2", "--embd", "256", "--heads", "4", "--kv-heads", "2", "--head-dim", "64",
         "--ffn", "512", "--vocab", str(VOCAB), "--context", "128")
EXPERTS = ("--experts", "8", "--experts-used", "2", "--expert-ffn", "256")
TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K",
         "Q5_K", "Q6_K", "Q4_K_M")
MAY_BE_UNSUPPORTED = {"Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q5_K"}
LIMIT = 1e-2


def logits(folder, model, engine):
    out = os.path.join(folder, "logits.f32")
    done = subprocess.run([SKEIN, "inspect", "logits", model, "--tokens",
                           os.path.join(folder, "ids.json"), "--out", out, "--engine", engine,
                           "--threads", "1"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return None, done.stderr.strip()
    values = array.array("f")
    with open(out, "rb") as file:
        values.frombytes(file.read())
    return values, ""


def median_error(native, dense):
    """Over positions: a router's near-tie may choose another expert for one of them."""
    errors = []
    for at in range(0, len(dense), VOCAB):
        row = dense[at:at + VOCAB]
        errors.append(sum((x - y) ** 2 for x, y in zip(native[at:at + VOCAB], row)) /
                      sum(x * x for x in row))
    return sorted(errors)[len(errors) // 2]


def main():
    failed = 0
    with tempfile.TemporaryDirectory(prefix="skein-test-") as folder:
        with open(os.path.join(folder, "ids.json"), "w", encoding="ascii") as file:
            json.dump([5, 300, 17, 256, 42, 400, 9, 77], file)
        for arch, more in (("llama", ()), ("qwen3", ()), ("qwen3moe", EXPERTS)):
            for kind in TYPES if arch == "llama" else ("F16", "Q8_0", "Q4_K_M"):
                model = os.path.join(folder, "model.gguf")
                subprocess.run([MAKE_GGUF, *SHAPE, *more, "--arch", arch, "--type", kind,
                                "--out", model], check=True)
                native, words = logits(folder, model, "native")
                if native is None and kind in MAY_BE_UNSUPPORTED and kind in words:
                    print(f"{arch} {kind}: refused by name")
                    continue
                dense, more_words = logits(folder, model, "openblas")
                if native is None or dense is None:
                    failed += 1
                    print(f"FAILED {arch} {kind}: {words} {more_words}")
                    continue
                power = sum(x * x for x in dense)
                error = median_error(native, dense)
                good = math.isfinite(power) and len(native) == len(dense) == 8 * VOCAB and \
                    0.01 < power / len(dense) < 100 and error < LIMIT
                failed += not good
                print(f"{'ok' if good else 'FAILED'} {arch} {kind}: error {error:.1e}, "
                      f"mean square {power / len(dense):.2f}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""skein's speed on models of random weights, beside the limits of the box and beside other programs.

    bench_model.py --build DIR [--shape S,…] [--type T,…] [--threads N,…] [--prompt N,…]
                   [--context N,…] [--batch N,…] [--generate N] [--kv TYPE] [--quantize TYPE] [--pairs N]
                   [--peer PEER]… [--load] [--models DIR] [--json FILE]

Shapes are 0.6b, 1b, 8b, 30b-a3b, tiny; types are those of make_gguf. A model is written once, into
--models. PEER is [NAME=]PATH[ FLAGS][ : FLAGS], PATH a llama-bench with a llama-batched-bench beside it,
or their folder, with flags for the one and for the other: "ik=/opt/ik/bin -rtr 1 : -rtr". One round runs skein and every peer
once, one after the other, in an order that turns with each round, so that what disturbs the box meets
all of them; ratios are taken within a round, against the best peer of that round, and their median,
least and most are printed. "of limit" is what skein bench says: the share of memory bandwidth or of
arithmetic, measured in the same minute; "limit" is the ratio that all of it would have.

--quantize is skein's own; peers run the file as it is. --load tells how long a cold and a warm file
takes, and what memory it takes, instead.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

PRESETS = {"0.6b": "qwen3-0.6b", "1b": "llama-1b", "8b": "llama-8b", "30b-a3b": "qwen3-30b-a3b",
           "tiny": "small"}
RESIDENT_EXTRA = 64 << 20


def numbers(text):
    return [int(part) for part in text.split(",") if part]


def words(text):
    return [part for part in text.split(",") if part]


def run(command, errors=False):
    """Standard output; with `errors` what came on standard error behind it."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}: {last}")
    return done.stdout + (done.stderr if errors else "")


def model_file(options, shape, kind):
    """The model's path; written where it is not there yet."""
    path = os.path.join(options.models, f"{shape}-{kind}.gguf")
    if not os.path.exists(path):
        os.makedirs(options.models, exist_ok=True)
        start = time.monotonic()
        run([os.path.join(options.build, "make_gguf"), "--preset", PRESETS.get(shape, shape),
             "--type", kind, "--out", path + ".part"])
        os.rename(path + ".part", path)
        size = os.path.getsize(path)
        print(f"wrote {path}: {size / 1e9:.2f} GB in {time.monotonic() - start:.1f} s",
              file=sys.stderr)
    return path


# ---------------------------------------------------------------- the programs

class Skein:
    name = "skein"

    def __init__(self, options):
        self.options = options
        self.program = os.path.join(options.build, "skein")
        self.shares = {}

    def measure(self, path, threads):
        """Case -> tokens per second. A case is (kind, size, batch)."""
        o = self.options
        command = [self.program, "bench", path, "--threads", str(threads), "--repeat", "1", "--json",
                   "--kv", o.kv, "--generate", str(o.generate),
                   "--prompt", ",".join(map(str, o.prompt or [32])),
                   "--context", ",".join(map(str, o.context)),
                   "--batch", ",".join(map(str, o.batch))]
        if o.quantize:
            command += ["--quantize", o.quantize]
        rates = {}
        for test in json.loads(run(command))["tests"]:
            prefill = test["test"] == "prefill"
            case = (test["test"], test["tokens" if prefill else "context"], test["batch"])
            if case in o.cases:
                rates[case] = test["tokens_per_second"]["median"]
                self.shares.setdefault(case, []).append((test["share"]["median"], test["limit"]))
        return rates


class Peer:
    def __init__(self, options, text):
        text, _, batched = text.partition(" : ")
        first, *self.flags = text.split()
        self.batched_flags = batched.split()
        name, found, path = first.rpartition("=")
        if os.path.isdir(path):
            path = os.path.join(path, "llama-bench")
        self.bench = path
        self.batched = os.path.join(os.path.dirname(path), "llama-batched-bench")
        self.name = name if found else os.path.basename(os.path.dirname(os.path.abspath(path)))
        self.options = options
        for program in (self.bench, self.batched):
            if not os.access(program, os.X_OK):
                sys.exit(f"{program} is not there")
        helped = subprocess.run([self.bench, "--help"], capture_output=True, text=True, check=False)
        self.has_depth = "--n-depth" in helped.stdout + helped.stderr

    def bench_rates(self, path, threads, flags):
        command = [self.bench, "-m", path, "-t", str(threads), "-r", "1", "-o", "json", "-ctk",
                   self.options.kv, "-ctv", self.options.kv, *flags, *self.flags]
        output = run(command)
        return json.loads(output[output.index("["):])

    def single(self, path, threads):
        """Prefills, and decode of one sequence at every context."""
        o, rates = self.options, {}
        prompts = [n for kind, n, _ in o.cases if kind == "prefill"]
        contexts = [n for kind, n, batch in o.cases if kind == "decode" and batch == 1]
        if prompts:
            for test in self.bench_rates(path, threads,
                                         ["-n", "0", "-p", ",".join(map(str, prompts))]):
                rates["prefill", test["n_prompt"], 1] = test["avg_ts"]
        for context in contexts:
            flags = ["-p", "0", "-n", str(o.generate)]
            if context and self.has_depth:
                flags += ["-d", str(context)]
            elif context:
                flags = ["-p", "0", "-n", "0", "-gp", f"{context},{o.generate}"]
            rates["decode", context, 1] = self.bench_rates(path, threads, flags)[-1]["avg_ts"]
        return rates

    def batches(self, path, threads):
        """Several sequences, each with a prompt of the context's length (at least 1)."""
        rates = {}
        for context in self.options.context:
            sizes = [b for kind, n, b in self.options.cases
                     if kind == "decode" and n == context and b > 1]
            if not sizes:
                continue
            room = max(sizes) * (max(context, 1) + self.options.generate) + 64
            output = run([self.batched, "-m", path, "-t", str(threads), "-c", str(room), "-npp",
                          str(max(context, 1)), "-ntg", str(self.options.generate), "-npl",
                          ",".join(map(str, sizes)), "-ctk", self.options.kv, "-ctv",
                          self.options.kv, *self.batched_flags], errors=True)
            for line in output.splitlines():
                cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
                if len(cells) == 10 and cells[2].isdigit():
                    rates["decode", context, int(cells[2])] = float(cells[7])
        return rates

    def measure(self, path, threads):
        return {**self.single(path, threads), **self.batches(path, threads)}


# ---------------------------------------------------------------- comparing

def spread(values, form="{:.2f}"):
    low, high = form.format(min(values)), form.format(max(values))
    return f"{form.format(statistics.median(values))} ({low} to {high})"


def case_words(case):
    kind, size, batch = case
    return f"prefill {size}" if kind == "prefill" else f"decode x{batch} at {size}"


def table(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for number, row in enumerate(rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |")
        if number == 0:
            print("|-" + "-|-".join("-" * width for width in widths) + "-|")
    sys.stdout.flush()


def compare(options, shape, kind, threads):
    path = model_file(options, shape, kind)
    skein, peers = Skein(options), [Peer(options, text) for text in options.peer]
    programs, rounds = [skein, *peers], []
    for number in range(options.pairs):
        turn = number % len(programs)
        rates = {}
        for program in programs[turn:] + programs[:turn]:
            rates[program.name] = program.measure(path, threads)
        rounds.append(rates)
    rows = [["case", "skein", "of limit", *(peer.name for peer in peers)]
            + (["ratio to the best", "limit"] if peers else [])]
    records = []
    for case in options.cases:
        ours = [rates["skein"][case] for rates in rounds]
        shares = skein.shares[case]
        row = [case_words(case), spread(ours, "{:.1f}"),
               f"{100 * statistics.median(share for share, _ in shares):.0f} % of {shares[-1][1]}"]
        record = {"shape": shape, "type": kind, "threads": threads, "case": case, "skein": ours,
                  "share": [share for share, _ in shares], "limit": shares[-1][1]}
        for peer in peers:
            theirs = [rates[peer.name].get(case, 0) for rates in rounds]
            record[peer.name] = theirs
            row.append(f"{statistics.median(theirs):.1f}")
        if peers:
            record["ratios"] = [rates["skein"][case] / max(rates[p.name].get(case, 0) or 1e-9
                                                           for p in peers) for rates in rounds]
            row.append(spread(record["ratios"]))
            whole = [ratio / share for ratio, (share, _) in zip(record["ratios"], shares)]
            row.append(f"{statistics.median(whole):.2f}")
        rows.append(row)
        records.append(record)
    form = f"{kind} as {options.quantize}" if options.quantize else kind
    print(f"\n{shape} {form}, {threads} thread{'' if threads == 1 else 's'}, KV {options.kv}, "
          f"{options.pairs} rounds, tokens/s")
    table(rows)
    return records


# ---------------------------------------------------------------- loading

def evict(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def read_rate(path):
    """Bytes per second of plain reads: of the disk for a cold file, of the page cache for a warm one."""
    size, block = 0, bytearray(8 << 20)
    start = time.monotonic()
    with open(path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while True:
            n = file.readinto(block)
            if not n:
                return size / (time.monotonic() - start)
            size += n


def load_once(options, path, threads, cold):
    if cold:
        evict(path)
    plain = read_rate(path)
    if cold:
        evict(path)
    result = json.loads(run([os.path.join(options.build, "skein"), "bench", path, "--threads",
                             str(threads), "--prompt", "64", "--generate", "1", "--repeat", "1",
                             "--kv", options.kv, "--json"]))
    result["plain"] = plain
    return result


def load(options, shape, kind, threads):
    path = model_file(options, shape, kind)
    rows = [["file", "load s", "GB/s", "plain read GB/s", "first token ms", "page faults of it",
             "peak MB", "allowed MB"]]
    records = []
    for state in ("cold", "warm"):
        runs = [load_once(options, path, threads, state == "cold") for _ in range(options.pairs)]
        seconds = [r["load_seconds"] for r in runs]
        peak = max(r["peak_resident_bytes"] for r in runs)
        allowed = runs[0]["weight_bytes"] + runs[0]["kv_bytes"] + RESIDENT_EXTRA
        rows.append([state, spread(seconds),
                     f"{runs[0]['weight_bytes'] / 1e9 / statistics.median(seconds):.2f}",
                     spread([r["plain"] / 1e9 for r in runs]),
                     spread([1000 * r["first_pass_seconds"] for r in runs], "{:.0f}"),
                     f"{max(r['first_pass_page_faults'] for r in runs)}",
                     f"{peak / 1e6:.0f}", f"{allowed / 1e6:.0f}"])
        records.append({"shape": shape, "type": kind, "threads": threads, "file": state, "runs": runs})
    print(f"\nloading {shape} {kind}, {threads} threads, {options.pairs} rounds")
    table(rows)
    return records


def main():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True, help="folder with skein and make_gguf")
    parser.add_argument("--shape", type=words, default=["0.6b", "1b"])
    parser.add_argument("--type", type=words, default=["Q4_0", "Q8_0", "Q4_K_M", "F16"])
    parser.add_argument("--threads", type=numbers, default=[1, os.cpu_count() or 1])
    parser.add_argument("--prompt", type=numbers, default=[512])
    parser.add_argument("--context", type=numbers, default=[0])
    parser.add_argument("--batch", type=numbers, default=[1])
    parser.add_argument("--generate", type=int, default=32)
    parser.add_argument("--kv", default="f16", choices=["f32", "f16", "q8_0"])
    parser.add_argument("--quantize")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--peer", action="append", default=[])
    parser.add_argument("--load", action="store_true")
    parser.add_argument("--models", default="bench_models")
    parser.add_argument("--json", help="file for every single figure")
    options = parser.parse_args()
    options.peer = [text for given in options.peer for text in given.split(",") if text]
    options.cases = ([("prefill", n, 1) for n in options.prompt]
                     + [("decode", c, b) for c in options.context for b in options.batch])
    records = []
    for shape in options.shape:
        for kind in options.type:
            for threads in options.threads:
                measure = load if options.load else compare
                records += measure(options, shape, kind, threads)
                if options.json:
                    with open(options.json, "w", encoding="utf-8") as file:
                        json.dump(records, file, indent=1)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Checks of the sources as a whole.

    lint.py CHECK SOURCE_FOLDER BUILD_FOLDER

Each check prints every place that breaks its rule and ends with 1, or with 77 where a tool it needs is
not there. The rules are those of the house (README.md of this folder says which and why).
"""
import concurrent.futures
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

SKIPPED = 77
OURS = ("proto", "partition", "discovery", "engine", "node")
TREES = OURS + ("tests", "deploy", ".ci")

# Folder: folders it may include from. The longest matching prefix counts.
LAYERS = {
    "proto/base": ("proto/base",),
    "proto": ("proto",),
    "partition": ("proto/base", "partition"),
    "engine": ("proto/base", "engine"),
    "discovery": ("proto", "discovery"),
    "node": OURS,
}
# What other folders may see; the rest of a folder is its own.
PUBLIC = {"proto/proto.h", "partition/partition.h", "discovery/discovery.h", "engine/engine.h",
          "engine/kernels/kernels.h", "engine/file/gguf.h", "engine/text/text.h"}
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 80
TIDY_VERSION = FORMAT_VERSION = "14"


def files_below(root, *suffixes, trees=TREES):
    """Paths relative to root, of the sources that git knows or, without git, all of them."""
    try:
        listed = subprocess.run(["git", "-c", "safe.directory=*", "ls-files", "-co",
                                 "--exclude-standard", *trees], cwd=root,
                                capture_output=True, check=True, text=True).stdout.split("\n")
    except (OSError, subprocess.CalledProcessError):
        listed = [os.path.relpath(os.path.join(folder, name), root)
                  for tree in trees for folder, _, names in os.walk(os.path.join(root, tree))
                  for name in names]
    return sorted(path for path in listed if path.endswith(suffixes) and
                  os.path.isfile(os.path.join(root, path)))


def lines_of(root, path):
    with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
        return file.read().split("\n")


def layer_of(path, layers=tuple(sorted(LAYERS, key=len, reverse=True))):
    return next((layer for layer in layers if path.startswith(layer + "/")), None)


def top_of(path):
    return path.split("/")[0]


def check_includes(root, _):
    """One direction of dependency, private headers stay private, system headers in their places."""
    for path in files_below(root, ".c", ".h", trees=OURS):
        layer = layer_of(path)
        for number, line in enumerate(lines_of(root, path), 1):
            match = re.match(r'\s*#\s*include\s+(["<])([^">]+)[">]', line)
            if not match:
                continue
            quote, name = match.groups()
            where = f"{path}:{number}"
            if quote == "<":
                if name == "uv.h" and not re.search(r"_uv\.[ch]$", path):
                    yield f"{where}: only *_uv files include <uv.h>"
                if "mdnsd" in name and path != "discovery/mdns.c":
                    yield f"{where}: only discovery/mdns.c includes libmdnsd's headers"
                continue
            if top_of(name) not in OURS:
                continue
            allowed = LAYERS[layer]
            if not any(name.startswith(folder + "/") for folder in allowed):
                yield f"{where}: {layer} may not include {name}"
            elif top_of(name) != top_of(path) and not name.startswith("proto/base/") and \
                    name not in PUBLIC:
                yield f"{where}: {name} is private to {top_of(name)}"


def check_sizes(root, _):
    """Files under 600 lines, functions under 80. A file that says why it is longer may be."""
    for path in files_below(root, ".c", ".h", ".py"):
        lines = lines_of(root, path)
        excused = any("lines because" in line for line in lines[:40])
        if len(lines) - 1 > MAX_FILE_LINES and not excused:
            yield f"{path}: {len(lines) - 1} lines"
        if not path.endswith((".c", ".h")):
            continue
        begin = None
        for number, line in enumerate(lines, 1):
            if line == "{":
                begin = number
            elif line == "}" and begin:
                if number - begin + 1 > MAX_FUNCTION_LINES:
                    yield f"{path}:{begin}: a function of {number - begin + 1} lines"
                begin = None


def check_words(root, _):
    """Names and leftovers."""
    leftovers = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|\bfor now\b")
    for path in files_below(root, ".c", ".h", ".py"):
        if path == "tests/lint/lint.py":
            continue
        for number, line in enumerate(lines_of(root, path), 1):
            if leftovers.search(line):
                yield f"{path}:{number}: leftover: {line.strip()}"
            # Each instruction set names its vectors alike; that takes typedefs.
            if re.match(r"\s*typedef\b", line) and path.endswith((".c", ".h")) and \
                    "/simd_" not in path:
                if not re.search(r"\(", line) and "{" not in line:
                    yield f"{path}:{number}: typedef of something other than a callback"
                elif re.match(r"\s*typedef\s+(struct|enum|union)\b[^(]*\{", line):
                    yield f"{path}:{number}: typedef of a struct, enum or union"
            if re.search(r"\b(struct|enum|union) \w+_t\b(?! *\*? *\w*\()", line) and \
                    path.startswith(OURS):
                yield f"{path}:{number}: a name of ours ends in _t"
        if path.endswith(".c") and path.startswith(OURS):
            head = next((line for line in lines_of(root, path) if line.strip()), "")
            if not head.startswith("/*"):
                yield f"{path}: does not open with what it does and why"


def check_paths(root, _):
    """Nothing of one machine in what is shipped."""
    machine = re.compile(r"(?<![\w.$}])/(work|home/\w+|root|Users)/")
    names = files_below(root, "", trees=(".",))
    for path in names:
        if path.endswith((".gguf", ".bin")) or "/corpus/" in path or path == "tests/lint/lint.py":
            continue
        for number, line in enumerate(lines_of(root, path), 1):
            if machine.search(line):
                yield f"{path}:{number}: {line.strip()[:120]}"


def tool(name, version):
    """The tool of that major version, by its plain or its versioned name; None where it is not."""
    for candidate in (f"{name}-{version}", name):
        if shutil.which(candidate):
            words = subprocess.run([candidate, "--version"], capture_output=True, text=True,
                                   check=False).stdout
            if re.search(rf"version {version}\.", words):
                return candidate
    return None


def check_format(root, _):
    """clang-format agrees."""
    clang_format = tool("clang-format", FORMAT_VERSION)
    if not clang_format:
        skip(f"clang-format {FORMAT_VERSION} is not here, others would format differently")
    paths = files_below(root, ".c", ".h")
    done = subprocess.run([clang_format, "--dry-run", "-Werror", *paths], cwd=root,
                          capture_output=True, text=True, check=False)
    for path in sorted(set(re.findall(r"^([^:\s]+):\d+:\d+: error", done.stderr, re.M))):
        yield f"{path}: not as clang-format would have it"
    if done.returncode and "error" not in done.stderr:
        yield done.stderr


def check_shell(root, _):
    """shellcheck finds nothing."""
    if not shutil.which("shellcheck"):
        skip("shellcheck is not here")
    scripts = [path for path in files_below(root, "", trees=("deploy", ".ci", "tests"))
               if path.endswith(".sh") or
               re.match(r"#!.*\b(ba|)sh\b", lines_of(root, path)[0])]
    done = subprocess.run(["shellcheck", "-x", "-P", ".", *scripts], cwd=root,
                          capture_output=True, text=True, check=False)
    if done.returncode:
        yield done.stdout + done.stderr


def tidy_one(clang_tidy, root, build, path, key, stamps):
    stamp = os.path.join(stamps, hashlib.sha256((path + key).encode()).hexdigest())
    if os.path.exists(stamp):
        return None
    done = subprocess.run([clang_tidy, "-p", build, "--quiet",
                           "--extra-arg=-Wno-unknown-warning-option", path],
                          cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        return done.stdout + done.stderr
    with open(stamp, "w", encoding="ascii"):
        return None


def check_tidy(root, build):
    """clang-tidy finds nothing. What was clean stays so until a header, the file or the rules change."""
    clang_tidy = tool("clang-tidy", TIDY_VERSION)
    if not clang_tidy:
        skip(f"clang-tidy {TIDY_VERSION} is not here, others check differently")
    if not os.path.exists(os.path.join(build, "compile_commands.json")):
        skip("there is no compile_commands.json")
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as file:
        commands = file.read()
    stamps = os.path.join(build, "lint-stamps")
    os.makedirs(stamps, exist_ok=True)
    shared = hashlib.sha256()
    for path in files_below(root, ".h") + [".clang-tidy"]:
        shared.update(open(os.path.join(root, path), "rb").read())
    paths = [path for path in files_below(root, ".c", trees=OURS) if f"/{path}\"" in commands]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = []
        for path in paths:
            own = hashlib.sha256(open(os.path.join(root, path), "rb").read())
            jobs.append(pool.submit(tidy_one, clang_tidy, root, build, path,
                                    shared.hexdigest() + own.hexdigest(), stamps))
        for job in jobs:
            if job.result():
                yield job.result()


def check_symbols(_, build):
    """The program exports nothing of its own, and its libraries define what their folder is called."""
    program = os.path.join(build, "skein")
    if not os.path.exists(program) or not shutil.which("nm"):
        skip("there is no program or no nm")
    done = subprocess.run(["nm", "-D", "--defined-only", program], capture_output=True, text=True,
                          check=True)
    for line in done.stdout.split("\n"):
        name = line.split()[-1] if line.split() else ""
        # Copies of a library's variables carry its version.
        if name and "@" not in name and name not in ("_init", "_fini", "environ", "__environ"):
            yield f"skein exports {name}"


def check_table(root, build):
    """README's table of commands is the program's own list."""
    program = os.path.join(build, "skein")
    if not os.path.exists(program):
        skip("there is no program")
    words = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
    section = re.search(r"^Commands:\n((?:(?:  .*)?\n)+)", words, re.M)
    there = set(re.findall(r"^  ([a-z]+)\b", section.group(1) if section else words, re.M))
    told = {line.split("`skein ")[1].split("`")[0].split()[0]
            for line in lines_of(root, "README.md") if line.startswith("| `skein ")}
    for name in sorted(there - told):
        yield f"README.md does not tell of `skein {name}`"
    for name in sorted(told - there):
        yield f"README.md tells of `skein {name}`, which --help does not"


def text_of(root, path):
    return "\n".join(lines_of(root, path))


def proven_families(root):
    """Family names of Hugging Face folders that some test opens and compares."""
    tested = set(re.findall(r'^    \{"[^"]+", "(\w+)",',
                            text_of(root, "tests/model/hf_layouts.c"), re.M))
    recorded = re.search(r"^Recorded folders.*?\n\n", text_of(root, "engine/README.md"), re.M | re.S)
    return tested | set(re.findall(r"\w+For\w+", recorded.group(0) if recorded else ""))


def architecture_rows(root, cases):
    """The table of architectures; cases: what each row says of its recorded cases."""
    families = re.findall(r'ROW\("(\w+)",\s*"([^"]+)"', text_of(root, "engine/hf/arch.c"))
    proven = proven_families(root)
    for name in re.findall(r'^        \.name = "([^"]+)"',
                           text_of(root, "engine/model/arch_table.c"), re.M):
        own = [family for family, arch in families if arch == name]
        yield "| {} | {} | {} | {} |".format(
            name, cases.get(name, ""), ", ".join(family for family in own if family in proven),
            ", ".join(family for family in own if family not in proven))


def type_rows(root):
    """The table of tensor types that are run."""
    def listed(path, start):
        body = text_of(root, path).split(start, 1)[1].split("\n};", 1)[0]
        return set(re.findall(r"TENSOR_(\w+)", body))

    decoded = listed("tests/kernels/test_quant_ref.c", "static enum tensor_type types[]")
    multiplied = listed("tests/kernels/test_matmul.c", "} kinds[] = {")
    panels = set(re.findall(r"\[TENSOR_(\w+)\] = panel_",
                            text_of(root, "engine/kernels/tmpl_table.h")))
    written = listed("engine/kernels/encode.c", "encoders[TENSOR_TYPE_LIMIT] = {")
    for name, values in re.findall(r"TYPE\((\w+), (\d+), \d+, true\)",
                                   text_of(root, "engine/kernels/types.c")):
        kernel = {"1": "float", "2": "bfloat16"}.get(values, "int8")
        if name not in panels:
            kernel = "decoded rows"
        yield "| {} | {} | {} | {} | {} |".format(
            name, "yes" if name in decoded else "NO", kernel,
            "yes" if name in multiplied else "no", "yes" if name in written else "")


def check_proofs(root, build):
    """The tables of proofs in engine/README.md are what sources and tests say."""
    readme = lines_of(root, "engine/README.md")
    told = [line for line in readme if line.startswith("| ")]
    cases = {cells[1].strip(): cells[2].strip() for cells in (line.split("|") for line in told)
             if len(cells) == 6}
    for row in [*architecture_rows(root, cases), *type_rows(root)]:
        if row not in told:
            yield f"engine/README.md lacks: {row}"
        if "| NO |" in row:
            yield f"no test decodes this type: {row}"
        if row.count("|") == 5 and not row.split("|")[2].strip():
            yield f"no recorded case: {row}"
    manifest = os.path.join(os.environ.get("SKEIN_CONFORMANCE") or "/nowhere", "manifest.json")
    if os.path.exists(manifest):
        with open(manifest, encoding="utf-8") as file:
            recorded = json.load(file)["arch"]
        for name, case in recorded.items():
            if name not in cases.get(case["arch"], "").split(", "):
                yield f"engine/README.md does not name the case {name} of {case['arch']}"


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIPPED)


def main():
    check, root, build = sys.argv[1:4]
    found = list(globals()[f"check_{check}"](os.path.abspath(root), os.path.abspath(build)))
    for words in found:
        print(words)
    print(f"{check}: {len(found)} finding{'' if len(found) == 1 else 's'}")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()

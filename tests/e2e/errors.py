#!/usr/bin/env python3
"""Everything that a user or a client can get wrong is told in one clear line, with the right code.

    errors.py SKEIN

Command line: exactly one line "skein: …" on standard error, nothing on standard output, the exit code
of the kind of error, no signal, no waiting. HTTP: the status and OpenAI's error object with the field
named. Files are the demo model, cut, emptied or changed byte by byte. Nodes run on loopback only.
"""
import contextlib
import http.client
import json
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

SKEIN = os.path.abspath(sys.argv[1])
HERE = os.path.dirname(os.path.abspath(__file__))
DEMO = os.path.join(HERE, "..", "..", "engine", "demo", "skein-tiny.gguf")
SLOW = float(os.environ.get("SKEIN_SLOW", "1"))
USAGE, DATA, NOT_FOUND, UNREACHABLE, UNSUPPORTED, AGAIN, DENIED = 64, 65, 66, 68, 69, 75, 77

failures = []


def check(good, words):
    if not good:
        failures.append(words)
        print(f"FAILED {words}", flush=True)


class Box:
    """A folder that stands for a user's home, and the commands run there."""

    def __init__(self, folder):
        self.folder = folder
        self.environment = {"PATH": os.environ["PATH"], "HOME": folder, "TMPDIR": folder}
        for name, value in os.environ.items():
            if name.endswith("SAN_OPTIONS"):
                self.environment[name] = value

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, data, mode=0o600):
        with open(self.path(name), "wb") as file:
            file.write(data)
        os.chmod(self.path(name), mode)
        return self.path(name)

    def run(self, *words, text=b"", limit=20, environment=None):
        return subprocess.run([SKEIN, *words], input=text, capture_output=True, check=False,
                              timeout=limit * SLOW, env={**self.environment, **(environment or {})})

    def refuses(self, code, pattern, *words, text=b"", environment=None):
        """The command fails with the code and one line that says the pattern."""
        what = "skein " + " ".join(words)
        try:
            done = self.run(*words, text=text, environment=environment)
        except subprocess.TimeoutExpired:
            check(False, f"{what}: no end")
            return
        lines = done.stderr.decode(errors="replace").splitlines()
        codes = code if isinstance(code, tuple) else (code,)
        check(done.returncode in codes, f"{what}: exit code {done.returncode}, not {code}: {lines}")
        remarks = [line for line in lines if not line.startswith("no node is running here")]
        check(len(remarks) == 1 and remarks[0].startswith("skein: "),
              f"{what}: not one line that begins with skein: {lines}")
        check(re.search(pattern, "\n".join(remarks), re.I), f"{what}: no /{pattern}/ in {lines}")
        check(done.stdout == b"", f"{what}: standard output: {done.stdout[:200]!r}")


# ---------------------------------------------------------------- model files

class Gguf:
    """Where things lie in a GGUF file, so that single ones can be changed."""

    SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

    def __init__(self, data):
        self.data, self.at, self.values, self.types = data, 4, {}, []
        self.u32()
        n_tensors, n_values = self.u64(), self.u64()
        self.n_values_at = self.at - 8
        for _ in range(n_values):
            key = self.text()
            kind = self.u32()
            self.values[key] = self.at
            self.skip(kind)
        for _ in range(n_tensors):
            self.text()
            n_dims = self.u32()
            self.dims_at = self.at
            self.at += 8 * n_dims
            self.types.append(self.at)
            self.at += 12

    def u32(self):
        self.at += 4
        return struct.unpack_from("<I", self.data, self.at - 4)[0]

    def u64(self):
        self.at += 8
        return struct.unpack_from("<Q", self.data, self.at - 8)[0]

    def text(self):
        n = self.u64()
        self.at += n
        return self.data[self.at - n:self.at].decode(errors="replace")

    def skip(self, kind):
        if kind == 8:
            self.text()
        elif kind == 9:
            inner, n = self.u32(), self.u64()
            for _ in range(n):
                self.skip(inner)
        else:
            self.at += self.SIZES[kind]

    def changed(self, at, new):
        return self.data[:at] + new + self.data[at + len(new):]


def bad_files(box):
    """(name, exit code, pattern) of files that nothing can be done with."""
    with open(DEMO, "rb") as file:
        data = file.read()
    gguf = Gguf(data)
    architecture = gguf.values["general.architecture"]
    huge = struct.pack("<Q", 2 ** 63)
    files = [
        ("empty.gguf", b"", DATA, "empty|trunc|ends|short|not a gguf"),
        ("four.gguf", b"GGUF", DATA, "trunc|ends|short"),
        ("text.gguf", b"this is no model\n" * 40, DATA, "gguf"),
        ("head.gguf", data[:100], DATA, "trunc|ends|short|fit"),
        ("half.gguf", data[:len(data) // 2], DATA, "trunc|ends|short|beyond|outside|past"),
        ("last.gguf", data[:-1], DATA, "trunc|ends|short|beyond|outside|past"),
        ("version.gguf", gguf.changed(4, struct.pack("<I", 77)), UNSUPPORTED, "version.*77|77"),
        ("values.gguf", gguf.changed(gguf.n_values_at, huge), DATA, "."),
        ("tensors.gguf", gguf.changed(gguf.n_values_at - 8, huge), DATA, "."),
        ("dims.gguf", gguf.changed(gguf.dims_at, huge), DATA, "."),
        ("offset.gguf", gguf.changed(gguf.types[-1] + 4, struct.pack("<Q", 2 ** 62)), DATA, "."),
        ("architecture.gguf", gguf.changed(architecture + 8, b"zz"), UNSUPPORTED, "architecture.*zz"),
        ("type.gguf", gguf.changed(gguf.types[3], struct.pack("<I", 9999)), (UNSUPPORTED, DATA),
         "type"),
    ]
    for name, content, code, pattern in files:
        yield box.write(name, content), code, pattern


def model_files(box):
    ids = box.write("ids.json", b"[1, 2, 3]")
    for path, code, pattern in bad_files(box):
        # a file whose tables are sound can be looked at, it only cannot be run
        if os.path.basename(path) not in ("architecture.gguf", "type.gguf"):
            box.refuses(code, pattern, "inspect", "model", path)
            box.refuses(code, pattern, "inspect", "tokens", path, text=b"x")
        box.refuses(code, pattern, "inspect", "logits", path, "--tokens", ids, "--out",
                    box.path("out"))
        box.refuses(code, pattern, "run", path, "hello")
        box.refuses(code, pattern, "bench", path, "--prompt", "8", "--generate", "2")
    box.refuses(NOT_FOUND, "nosuch.gguf", "inspect", "model", box.path("nosuch.gguf"))
    box.refuses(NOT_FOUND, "nosuch.gguf", "run", box.path("nosuch.gguf"), "hello")
    box.refuses((USAGE, DATA, 74), "folder", "inspect", "model", box.folder)
    box.refuses(USAGE, "0 to", "inspect", "logits", "tiny", "--tokens",
                box.write("high.json", b"[1, 99999999]"), "--out", box.path("out"))
    box.refuses(DATA, "json", "inspect", "logits", "tiny", "--tokens",
                box.write("broken.json", b"[1, 2"), "--out", box.path("out"))
    box.refuses(DATA, "context", "inspect", "logits", "tiny", "--tokens",
                box.write("long.json", json.dumps([1] * 100000).encode()), "--out", box.path("out"))
    box.refuses((USAGE, DATA), ".", "inspect", "text", "tiny", text=b"[-1]")
    box.refuses((USAGE, DATA), ".", "inspect", "prompt", "tiny", text=b"{")


# ---------------------------------------------------------------- command line

def command_line(box):
    box.refuses(USAGE, "help")
    box.refuses(USAGE, "did you mean peers", "pers")
    box.refuses(USAGE, "did you mean --memory", "up", "--memroy", "8G")
    for command in ("up", "run", "peers", "plan", "engines", "ls", "convert", "bench", "key", "version"):
        box.refuses(USAGE, "--nonsense", command, "--nonsense")
        done = box.run(command, "--help")
        check(done.returncode == 0 and b"usage: skein " + command.encode() in done.stdout
              and not done.stderr, f"skein {command} --help: {done.returncode} {done.stderr!r}")
    for part in ("model", "tokens", "text", "prompt", "logits"):
        box.refuses(USAGE, "--nonsense", "inspect", part, "--nonsense")
        check(box.run("inspect", part, "--help").returncode == 0, f"inspect {part} --help")
    box.refuses(USAGE, "did you mean tokens", "inspect", "token", "tiny")
    box.refuses(USAGE, "size", "up", "--memory", "lots")
    box.refuses(USAGE, "65535", "up", "--port", "70000")
    box.refuses(USAGE, "ADDRESS:PORT|127.0.0.1", "up", "--api", "nonsense")
    box.refuses(USAGE, "--peer", "up", "--peer", "host:port:again")
    box.refuses(USAGE, "log-level", "up", "--log-level", "loud")
    box.refuses(USAGE, "latency, throughput", "plan", "tiny", "--objective", "fast")
    box.refuses(USAGE, "SKEIN_MEMORY", "up", environment={"SKEIN_MEMORY": "lots"})
    for command in (("up",), ("run", "tiny", "x"), ("bench", "tiny"), ("plan", "tiny")):
        box.refuses((NOT_FOUND, USAGE), "native.*openblas|openblas.*native", *command, "--engine",
                    "warp")
    box.refuses((NOT_FOUND, USAGE), "native", "up", environment={"SKEIN_ENGINE": "warp"})
    for option in ("--prompt", "--context", "--batch"):
        for value in ("", "1,", ",1", "-1", "8x", "1,,2", "99999999999", ",".join("1" * 17)):
            box.refuses(USAGE, option, "bench", "tiny", option, value)
    box.refuses(DATA, "context", "bench", "tiny", "--context", "0,100000", "--generate", "1")
    box.refuses(USAGE, "f32, f16 and q8_0", "bench", "tiny", "--kv", "q3")
    box.refuses(UNREACHABLE, "skein up", "peers", "--api", "127.0.0.1:1")
    box.refuses(UNREACHABLE, "skein up", "run", "tiny", "x", "--api", "127.0.0.1:1")
    box.refuses(NOT_FOUND, "nosuchmodel", "run", "nosuchmodel", "x")
    box.refuses(USAGE, "empty", "run", "tiny", "")
    os.makedirs(box.path(".config/skein"), exist_ok=True)
    config = box.write(".config/skein/config", b"# mine\nmemroy = 1G\n")
    box.refuses(USAGE, re.escape(config) + ":2: .*memory", "engines")
    box.write(".config/skein/config", b"\n\ncontext = long\n")
    box.refuses(USAGE, re.escape(config) + ":3: context", "up")
    os.remove(config)


def key_files(box):
    loose = box.write("loose.key", b"x" * 32, 0o644)
    box.refuses(DENIED, "chmod 600", "up", "--cluster-key", loose, "--no-discovery", "--api",
                "127.0.0.1:0")
    box.refuses(DENIED, "chmod 600", "key", "--cluster-key", loose)
    box.refuses(DATA, ".", "key", "--cluster-key", box.write("odd.key", b"nonsense"))
    box.refuses((74, DATA, DENIED, NOT_FOUND), ".", "key", "--cluster-key", box.folder)
    if os.getuid() != 0:
        box.refuses(DENIED, "permission", "key", "--cluster-key", box.write("no.key", b"", 0))
    box.refuses(USAGE, ".", "key", "join", "skein-nonsense")
    api_key = box.write("api.key", b"0123456789abcdef", 0o644)
    common = ("up", "--no-discovery", "--state", box.path("state-keys"))
    box.refuses(DENIED, "chmod 600", *common, "--api", "127.0.0.1:0", "--api-key-file", api_key)
    box.refuses(DATA, "16", *common, "--api", "127.0.0.1:0", "--api-key-file",
                box.write("short.key", b"short"))
    box.refuses(NOT_FOUND, "nosuch", *common, "--api", "127.0.0.1:0", "--api-key-file",
                box.path("nosuch"))
    box.refuses(USAGE, "--api-key-file", *common, "--api", "0.0.0.0:0")
    first = box.run("key", "--state", box.path("one")).stdout.decode().strip()
    check(first.startswith("skein-"), f"no join line: {first!r}")
    box.run("key", "--state", box.path("two"))
    box.refuses(AGAIN, "key", "key", "--state", box.path("two"), "join", first)
    typo = first[:-1] + ("2" if first[-1] != "2" else "3")
    box.refuses(USAGE, ".", "key", "--state", box.path("three"), "join", typo)


# ---------------------------------------------------------------- nodes

class Up:
    """A node on loopback that is ended whatever happens."""

    def __init__(self, box, name, *options, discovery=False):
        quiet = ("--interface", "lo") if discovery else ("--no-discovery",)
        self.process = subprocess.Popen(
            [SKEIN, "up", "--name", name, "--state", box.path("state-" + name), "--api",
             "127.0.0.1:0", "--threads", "1", *quiet, *options],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=box.environment)
        self.port, self.words = 0, []
        for line in self.process.stdout:
            line = line.decode(errors="replace").strip()
            self.words.append(line)
            found = re.match(r"API at http://127\.0\.0\.1:(\d+)$", line)
            if found:
                self.port = int(found.group(1))
            if line.startswith("ready"):
                break
        self.reader = threading.Thread(target=self.process.stdout.read, daemon=True)
        self.reader.start()
        self.address = f"127.0.0.1:{self.port}"

    def __enter__(self):
        check(self.port > 0, f"no node: {self.words} {self.process.poll()}")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            code = self.process.wait(15 * SLOW)
            check(code == 0, f"the node ended with {code}: {self.process.stderr.read()[-2000:]}")
        except subprocess.TimeoutExpired:
            self.process.kill()
            check(False, "the node does not end on SIGTERM")
        self.reader.join()
        self.process.stdout.close()
        self.process.stderr.close()

    def ask(self, method, path, body=None, headers=None, limit=30):
        """(status, headers, JSON) of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=limit * SLOW)
        with contextlib.closing(connection):
            if isinstance(body, (dict, list)):
                body = json.dumps(body)
            connection.request(method, path, body,
                               {"Content-Type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            data = answer.read()
            try:
                return answer.status, answer.headers, json.loads(data) if data else None
            except ValueError:
                return answer.status, answer.headers, data

    def refuses(self, status, method, path, body=None, param=None, code=None, pattern="",
                headers=None):
        what = f"{method} {path} {str(body)[:120]}"
        got, fields, answer = self.ask(method, path, body, headers)
        check(got == status, f"{what}: {got}, not {status}: {answer}")
        error = answer.get("error") if isinstance(answer, dict) else None
        check(isinstance(error, dict) and set(error) == {"message", "type", "param", "code"},
              f"{what}: no error object: {answer}")
        if isinstance(error, dict):
            check(isinstance(error["message"], str) and error["message"] != ""
                  and "\n" not in error["message"], f"{what}: message {error['message']!r}")
            check(param is None or error["param"] == param, f"{what}: param {error['param']!r}")
            check(code is None or error["code"] == code, f"{what}: code {error['code']!r}")
            check(re.search(pattern, error["message"], re.I), f"{what}: {error['message']!r}")
        return fields


def chat(**more):
    return {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, **more}


def http_errors(node):
    path = "/v1/chat/completions"
    for body in ("", "{", "[1, 2", '{"model": "tiny",}', "\xff", "nonsense"):
        node.refuses(400, "POST", path, body.encode("latin-1"), pattern="json")
    node.refuses(400, "POST", path, [1], pattern="object")
    node.refuses(400, "POST", path, "[" * 10000, pattern="nested|deep")
    for field, value in (("temperature", "hot"), ("temperature", 9), ("top_p", []), ("top_k", 1.5),
                         ("max_tokens", -1), ("max_tokens", "4"), ("seed", {}), ("stream", "yes"),
                         ("messages", "hi"), ("messages", []), ("model", 5), ("stop", 5),
                         ("n", 2), ("logprobs", True), ("logit_bias", {"x": 1}),
                         ("response_format", {"type": "json_object"}), ("tool_choice", "required"),
                         ("presence_penalty", 3.0), ("audio", {"voice": "x"}), ("temprature", 1)):
        node.refuses(400, "POST", path, chat(**{field: value}), param=field)
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    node.refuses(400, "POST", path, chat(messages=picture), param="messages[0].content[0]")
    node.refuses(400, "POST", path, chat(messages=[{"role": "god", "content": "x"}]),
                 param="messages[0].role")
    node.refuses(404, "POST", path, chat(model="nosuchmodel"), param="model",
                 code="model_not_found", pattern="nosuchmodel")
    node.refuses(404, "POST", path, chat(model="nosuchmodel", stream=True), param="model")
    for stream in (False, True):
        node.refuses(400, "POST", path,
                     chat(messages=[{"role": "user", "content": "long words " * 20000}],
                          stream=stream), code="context_length_exceeded", pattern=r"\d+")
    node.refuses(400, "POST", "/v1/completions", {"model": "tiny", "prompt": [1, 2]}, param="prompt")
    node.refuses(400, "POST", "/v1/completions", {"model": "tiny"}, param="prompt")
    node.refuses(400, "POST", path, chat(logit_bias={"999999999": 1}), pattern="token 999999999")
    prompt = {"model": "tiny", "prompt": "a", "temperature": 0, "max_tokens": 4, "ignore_eos": True}
    answers = [node.ask("POST", "/v1/completions", {**prompt, **more})[2]["choices"][0]["text"]
               for more in ({"logit_bias": {"300": 100}}, {"logit_bias": {"300": -100}}, {})]
    check(answers[0] == answers[0][:len(answers[0]) // 4] * 4, f"the bias is not honoured: {answers}")
    check(answers[0] != answers[1], f"the ban is not honoured: {answers}")
    harmless = chat(user="me", metadata={"a": "b"}, store=False, n=1, logprobs=False)
    check(node.ask("POST", path, harmless)[0] == 200, "harmless fields are refused")


def http_limits(node):
    path = "/v1/chat/completions"
    node.refuses(413, "POST", path, b" " * (8 * 1024 * 1024 + 1), pattern=r"\d+ bytes")
    node.refuses(413, "POST", path, None, headers={"Content-Length": "1" + "0" * 15})
    chunks = (b" " * 65536 for _ in range(140))
    node.refuses(413, "POST", path, chunks, pattern=r"\d+ bytes")
    fields = node.refuses(405, "GET", path)
    check(fields["Allow"] == "POST", f"Allow: {fields['Allow']}")
    node.refuses(404, "GET", "/v1/nothing")
    node.refuses(404, "GET", "/v1/models/nosuchmodel", param="model")
    node.refuses(415, "POST", path, "{}", headers={"Content-Type": "text/plain"})
    node.refuses(403, "GET", "/v1/models", headers={"Host": "evil.example"})
    node.refuses(403, "GET", "/v1/models", headers={"Origin": "https://evil.example"})
    node.refuses(404, "GET", "/skein/plan?model=nosuchmodel", param="model")
    node.refuses(400, "GET", "/skein/plan", param="model")
    check(node.ask("GET", "/health")[0] == 200, "no health")
    check("Access-Control-Allow-Origin" not in node.ask("GET", "/health")[1], "CORS")


def slow_clients(node):
    """Connections that send nothing, or half a request, keep nobody else waiting."""
    with contextlib.ExitStack() as stack:
        for i in range(50):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", node.port)))
            if i % 2:
                client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Le")
        began = time.monotonic()
        check(node.ask("GET", "/health")[0] == 200, "no health beside slow clients")
        check(time.monotonic() - began < 2 * SLOW, "slow clients slow others down")


def clients(box, node):
    """Commands that a running node refuses."""
    api = ("--api", node.address)
    box.refuses(NOT_FOUND, "nosuchmodel", "run", "nosuchmodel", "x", *api)
    box.refuses(NOT_FOUND, "nosuchmodel", "plan", "nosuchmodel", *api)
    box.refuses(DATA, "context", "run", "tiny", "-q", *api, text=b"long words " * 20000)
    for path, code, pattern in bad_files(box):
        box.refuses(code, pattern, "run", path, "hello", *api)
    done = box.run("run", "tiny", "hello", "--max-tokens", "4", "-q", *api)
    check(done.returncode == 0 and done.stdout and not done.stderr, f"the node is no longer well: {done}")


def nodes(box):
    with Up(box, "first", "--context", "512") as node:
        http_errors(node)
        http_limits(node)
        slow_clients(node)
        clients(box, node)
        box.refuses(AGAIN, rf"port {node.port} is in use", "up", "--no-discovery", "--api",
                    node.address, "--state", box.path("state-other"))
        box.refuses(AGAIN, "use|running", "up", "--no-discovery", "--api", "127.0.0.1:0", "--state",
                    box.path("state-first"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        box.refuses(AGAIN, rf"{port}", "up", "--interface", "lo", "--listen", "127.0.0.1", "--port",
                    str(port), "--api", "127.0.0.1:0", "--state", box.path("state-mesh"))
    key = box.write("good.key", b"0123456789abcdef0123456789abcdef\n")
    with Up(box, "keyed", "--api-key-file", key) as node:
        node.refuses(401, "GET", "/v1/models", code="invalid_api_key")
        node.refuses(401, "POST", "/v1/chat/completions", chat(),
                     headers={"Authorization": "Bearer wrong"})
        check(node.ask("GET", "/health")[0] == 200, "health wants a key")
        good = {"Authorization": "Bearer 0123456789abcdef0123456789abcdef"}
        check(node.ask("GET", "/v1/models", headers=good)[0] == 200, "the key is refused")
        box.refuses(DENIED, "key", "peers", "--api", node.address)
        done = box.run("peers", "--api", node.address, "--api-key-file", key)
        check(done.returncode == 0, f"peers with the key: {done}")
    with Up(box, "small", "--memory", "1M") as node:
        began = time.monotonic()
        node.refuses(503, "POST", "/v1/chat/completions", chat(), pattern=r"\d.*(MB|KB|bytes)")
        box.refuses(UNSUPPORTED, r"\d.*(MB|KB|bytes)", "run", "tiny", "x", "--api", node.address)
        check(time.monotonic() - began < 5 * SLOW, "too little memory is noticed late")


def main():
    with tempfile.TemporaryDirectory(prefix="skein-test-") as folder:
        box = Box(folder)
        for part in (command_line, model_files, key_files, nodes):
            before = len(failures)
            part(box)
            print(f"{'ok' if len(failures) == before else 'FAILED'} {part.__name__}", flush=True)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()

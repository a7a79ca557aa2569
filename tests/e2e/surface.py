#!/usr/bin/env python3
"""What a user and a client are shown, and where settings come from.

    surface.py SKEIN

Sampling defaults: a model file that recommends settings gives the answers of a request that names them,
asked at its head or through another node; a request's own settings win. Turns: two models that take
the memory of both nodes, headed by either, one closed for the other. Models: what `skein ls` and GET
/v1/models say of files that run and files that do not, and that a request for the latter gets the
reason. Requests: seeds of 64 bits, tools without a place, aliases. Box: `skein engines`, `skein
inspect`. Nodes run on loopback only.
"""
import json
import os
import re
import struct
import sys
import tempfile
import time

from errors import (DEMO, UNSUPPORTED, USAGE, Box, Up, chat, check, failures)

PROMPT = "Once upon a time"


def text_value(key, text):
    return text_key(key) + struct.pack("<IQ", 8, len(text)) + text


def text_key(key):
    return struct.pack("<Q", len(key)) + key


def with_sampling(data, **floats):
    """The GGUF file with general.sampling.*, and a text that keeps the tensors aligned."""
    values = b"".join(text_key(b"general.sampling." + name.encode()) + struct.pack("<If", 6, value)
                      for name, value in floats.items())
    padding = text_value(b"test.padding", b"")
    values += text_value(b"test.padding", b"." * (-(len(values) + len(padding)) % 32))
    n_values, = struct.unpack_from("<Q", data, 16)
    return data[:16] + struct.pack("<Q", n_values + len(floats) + 1) + values + data[24:]


def of_another_architecture(data):
    at = data.index(b"general.architecture") + 20 + 4 + 8
    return data[:at] + b"x" + data[at + 1:]


def completion(node, **more):
    status, _, answer = node.ask("POST", "/v1/completions", {
        "model": "advised", "prompt": PROMPT, "max_tokens": 24, "seed": 11, **more})
    check(status == 200, f"{more}: {status} {answer}")
    return answer["choices"][0]["text"] if status == 200 else None


def sampling(box, folder):
    """The file says temperature 0, so every seed gives the same; a request may say otherwise."""
    with Up(box, "advised", "--models", folder) as node:
        greedy = completion(node, temperature=0)
        check(completion(node) == greedy, "the model's temperature is not used")
        check(completion(node, seed=12) == greedy, "the model's temperature is not used for seed 12")
        check(len({completion(node, temperature=0.8, seed=seed) for seed in range(4)}) > 1,
              "a request's own temperature does not win")
        status, _, answer = node.ask("POST", "/v1/completions", {
            "model": "tiny", "prompt": PROMPT, "max_tokens": 24, "seed": 12, "temperature": 0})
        check(status == 200 and answer["choices"][0]["text"] == greedy, f"another model: {answer}")
        said = box.run("run", "advised", PROMPT, "--raw", "--max-tokens", "24", "-q", "--api",
                       node.address)
        check(said.stdout.decode().rstrip("\n") == greedy.rstrip("\n"), f"skein run: {said}")
    shown = json.loads(box.run("inspect", "model", os.path.join(folder, "advised.gguf")).stdout)
    check(shown["sampling"]["temperature"] == 0 and abs(shown["sampling"]["top_p"] - 0.5) < 1e-6,
          f"inspect model: {shown['sampling']}")


LOOPBACK = ("--listen", "127.0.0.1", "--port", "0")


def beside(box, name, other_name, other, *options):
    """A node of the same cluster that is told where the other one is."""
    port = next((found.group(1) for word in other.words
                 if (found := re.search(r"nodes connect to port (\d+)", word))), None)
    check(port, f"no port for nodes: {other.words}")
    return Up(box, name, *LOOPBACK, "--cluster-key", box.path(f"state-{other_name}/cluster.key"),
              "--peer", f"127.0.0.1:{port}", *options, discovery=True)


def front_is_not_head(box, folder):
    """The node that is asked has no such file: the head's model decides."""
    with Up(box, "head", "--models", folder, *LOOPBACK, discovery=True) as head:
        with beside(box, "front", "head", head) as front:
            for _ in range(100):
                names = [model["id"] for model in front.ask("GET", "/v1/models")[2]["data"]]
                if "advised" in names:
                    break
                time.sleep(0.1)
            check("advised" in names, f"the front does not see the model: {names}")
            check(completion(front, seed=1) == completion(front, seed=2), "the head's model has no say")


def know_each_other(nodes):
    """Each sees all alive and measured."""
    for _ in range(200):
        views = [node.ask("GET", "/skein/peers")[2]["nodes"] for node in nodes]
        if all(sum(member["state"] in ("self", "alive") and member["read_bytes_per_second"] is not None
                   for member in view) == len(nodes) for view in views):
            return
        time.sleep(0.1)
    check(False, f"they do not know each other: {views}")


def turns(box, folder):
    """Either model takes the memory of both nodes: whoever asks for the one that is not there has the
    other one closed at its head, and both nodes tell at once what runs."""
    options = ("--models", folder, "--memory", "18M", "--context", "256")
    with Up(box, "one", *LOOPBACK, *options, discovery=True) as one:
        with beside(box, "two", "one", one, *options) as two:
            know_each_other((one, two))
            for node, head, model in ((one, "one", "skein-tiny"), (two, "two", "advised"),
                                      (one, "one", "skein-tiny")):
                status, _, answer = node.ask("POST", "/v1/completions", {
                    "model": model, "prompt": PROMPT, "max_tokens": 4}, limit=60)
                check(status == 200, f"{model} at {head}: {status} {answer}")
                for name, asked in (("one", one), ("two", two)):
                    said = box.run("plan", model, "--json", "--api", asked.address)
                    plan = json.loads(said.stdout or b"{}")
                    check(plan.get("running") and plan["head_name"] == head and
                          {stage["node"] for stage in plan["stages"]} == {"one", "two"},
                          f"{model} at {head}, the plan on {name}: {said}")
                    running = [(it["model"], it["head_name"]) for it in
                               asked.ask("GET", "/skein/instances")[2]["instances"]]
                    check(running == [(model, head)], f"on {name}: {running}, not {model} at {head}")


def models(box, folder):
    with Up(box, "models", "--models", folder) as node:
        listed = box.run("ls", "--api", node.address).stdout.decode()
        row = next((line for line in listed.splitlines() if line.startswith("advised ")), "")
        check(re.search(r"F16 .* 8 +1024 ", row), f"ls does not describe the model: {listed}")
        check(re.search(r"^odd on models cannot be used: architecture .xlama. is not supported",
                        listed, re.M), f"ls does not say why: {listed}")
        check(re.search(r"^cut on models cannot be used: .*cut off", listed, re.M), f"ls: {listed}")
        status, _, answer = node.ask("GET", "/v1/models")
        check(status == 200 and answer["object"] == "list", f"models: {answer}")
        check({model["id"] for model in answer["data"]} == {"skein-tiny", "advised"}, f"{answer}")
        check({model["id"] for model in answer["cannot_run"]} == {"odd", "cut"}, f"{answer}")
        node.refuses(400, "POST", "/v1/chat/completions", {**chat(), "model": "odd"},
                     pattern="architecture .xlama. is not supported")
        box.refuses(UNSUPPORTED, "odd .*architecture .xlama.", "run", "odd", "x", "--api", node.address)
        for name in ("tiny", "SKEIN-TINY", "skein-t"):
            status, _, answer = node.ask("GET", "/v1/models/" + name)
            check(status == 200 and answer["id"] == "skein-tiny", f"{name}: {status} {answer}")
        node.refuses(404, "GET", "/v1/models/nothing", param="model",
                     pattern="skein-tiny on models")


def requests(box, _folder):
    path = "/v1/chat/completions"
    with Up(box, "requests", "--context", "64") as node:
        for seed in (0, 1, 2**63 - 1, 2**63, 2**64 - 1):
            answers = [node.ask("POST", path, chat(seed=seed)) for _ in range(2)]
            check(all(status == 200 for status, _, _ in answers), f"seed {seed}: {answers}")
            texts = {answer["choices"][0]["message"]["content"] for _, _, answer in answers}
            check(len(texts) == 1, f"seed {seed}: {texts}")
            check(int(answers[0][2]["skein"]["seed"]) == seed, f"seed {seed}: {answers[0][2]['skein']}")
        tool = {"type": "function", "function": {"name": "clock", "parameters": {}}}
        node.refuses(400, "POST", path, chat(tools=[tool]), param="tools", pattern="no place for tools")
        check(node.ask("POST", path, chat(tools=[tool], tool_choice="none"))[0] == 200, "tools: none")
        node.refuses(400, "POST", path, '{"model": "tiny", "messages": [{"role": "user", "content": "a\\u0000"}]}',
                     pattern=r"u0000")
        node.refuses(400, "POST", path, chat(messages=[{"role": "user", "content": "long " * 200}]),
                     param="messages", code="context_length_exceeded", pattern="--context, up to 1024")
        node.refuses(400, "POST", "/v1/completions", {"model": "tiny", "prompt": "long " * 200},
                     param="prompt", code="context_length_exceeded")


def commands(box, _folder):
    text = box.run("engines", "--quick").stdout.decode()
    check(re.search(r"^native +available", text, re.M) and "OpenBLAS" in text, f"engines: {text}")
    view = json.loads(box.run("engines", "--json", limit=40).stdout)
    check(sum(isa["used"] for isa in view["isas"]) == 1 and all(isa["why"] for isa in view["isas"]),
          f"isas: {view['isas']}")
    for engine in view["engines"]:
        check(engine["available"] and all(speed["read_bytes_per_second"] > 0 and
                                          speed["mapped_bytes_per_second"] > 0 and
                                          speed["flops_per_second"] > 0 for speed in engine["speed"]),
              f"engine: {engine}")
    forced = {"SKEIN_ISA": "generic"}
    view = json.loads(box.run("engines", "--json", "--quick", environment=forced).stdout)
    check([isa["name"] for isa in view["isas"] if isa["used"]] == ["generic"], f"forced: {view['isas']}")
    ids = box.write("ids.json", b"[1, 2]")
    box.refuses(USAGE, "--stages 9 .* 8 layers", "inspect", "logits", "tiny", "--tokens", ids, "--out",
                box.path("out"), "--stages", "9")
    box.refuses(USAGE, "--logit-bias", "run", "tiny", "x", "--logit-bias", "nine=1")
    banned = box.run("inspect", "tokens", "tiny", "--no-bos", text=b"a")
    check(banned.returncode == 0, f"tokens: {banned}")
    template = box.write("clock.jinja", b"{{ strftime_now('%H:%M') }}")
    messages = box.write("messages.json", b'[{"role": "user", "content": "x"}]')
    words = ("inspect", "prompt", "--template", template, "--messages", messages, "--now",
             "2026-01-31T12:00:00")
    for zone in ("UTC", "Asia/Tokyo"):
        check(box.run(*words, environment={"TZ": zone}).stdout == b"12:00", f"--now in {zone}")
    hours = {box.run(*words[:-2], environment={"TZ": zone}).stdout[:2] for zone in ("UTC0", "XYZ-9")}
    check(len(hours) == 2, f"strftime_now does not follow TZ: {hours}")


def main():
    with tempfile.TemporaryDirectory(prefix="skein-test-") as top:
        box = Box(top)
        folder = box.path("models")
        os.mkdir(folder)
        with open(DEMO, "rb") as file:
            data = file.read()
        box.write("models/advised.gguf", with_sampling(data, temp=0.0, top_p=0.5))
        box.write("models/odd.gguf", of_another_architecture(data))
        box.write("models/cut.gguf", data[:len(data) // 2])
        for part in (sampling, front_is_not_head, turns, models, requests, commands):
            before = len(failures)
            part(box, folder)
            print(f"{'ok' if len(failures) == before else 'FAILED'} {part.__name__}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

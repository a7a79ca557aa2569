"""Writes cases.json: templates, their variables and what jinja2 makes of them.

The templates are our own: small ones in snippets.txt (one feature each, parted by lines of "====="),
and the *.jinja files, written in the manner of those that models ship. Run after a change to either:
    python3 make_cases.py
Where a case fails in jinja2, only that it fails is recorded."""
import glob
import json
import os

import oracle

HERE = os.path.dirname(os.path.abspath(__file__))

VARIABLES = {
    "messages": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi \"there\" <b>&'é"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"function": {"name": "f", "arguments": {"a": 1, "b": [1, 2.5, None, True]}}}]},
    ],
    "tools": [{"type": "function", "function": {
        "name": "get_weather", "description": "Gets",
        "parameters": {"type": "object", "properties": {
            "city": {"type": "string"}, "n": {"type": "integer"}}, "required": ["city"]}}}],
    "documents": None, "s": "Hello, World", "u": "naïve café 日本語 ß", "l": [3, 1, 2],
    "d": {"b": 2, "a": 1, "C": 3}, "n": 5, "neg": -7, "f": 3.14159, "t": True, "fa": False,
    "no": None, "e": "", "el": [], "ed": {}, "add_generation_prompt": True,
    "mixed": ["b", "A", "c", "B"], "nested": [{"k": {"x": 2}}, {"k": {"x": 1}}],
    "dd": {"items": 1, "keys": 2, "x": {"y": [1, 2, 3]}},
    "multi": "line1\nline2\n\n  line4  \n", "big": 123456789012,
}

WEATHER = [{"type": "function", "function": {
    "name": "get_weather", "description": "Looks up the \"weather\" – now",
    "parameters": {"type": "object", "properties": {
        "city": {"type": "string", "description": "Name, e.g. Zürich"},
        "unit": {"type": "string", "enum": ["C", "F"]},
        "days": {"type": "array", "items": {"type": "integer"}},
        "deep": {"type": "object", "properties": {"a": {"type": ["string", "null"]},
                                                  "b": {"oneOf": [{"type": "number"},
                                                                  {"type": "string"}]}}}},
        "required": ["city"]}}}, {"type": "function", "function": {
            "name": "now", "description": "", "parameters": {}}}]

CALL = {"role": "assistant", "content": "", "tool_calls": [
    {"id": "abcdefghi", "type": "function", "function": {
        "name": "get_weather", "arguments": {"city": "Zürich \"Old\" Town", "days": [1, 2]}}}]}

CONVERSATIONS = {
    "one": [{"role": "user", "content": "Hello"}],
    "system": [{"role": "system", "content": "  You are terse.\n"},
               {"role": "user", "content": " What is 2+2? \n"}],
    "turns": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello! 😀"},
              {"role": "user", "content": "Again\n\n"}],
    "thinking": [{"role": "user", "content": "Why?"},
                 {"role": "assistant", "content": "<think>\nhm\n</think>\n\nBecause."},
                 {"role": "user", "content": "Really?"},
                 {"role": "assistant", "content": "Yes.", "reasoning_content": "\nsure\n"}],
    "tool": [{"role": "system", "content": "Use tools."}, {"role": "user", "content": "Weather?"},
             CALL, {"role": "tool", "tool_call_id": "abcdefghi", "content": "{\"t\": 21.5}"},
             {"role": "assistant", "content": "21.5 degrees."},
             {"role": "user", "content": "Thanks"}],
    "tools twice": [{"role": "user", "content": "x"}, CALL,
                    {"role": "tool", "tool_call_id": "abcdefghi", "content": "1"},
                    {"role": "tool", "tool_call_id": "abcdefghi", "content": "2"}],
    "none content": [{"role": "user", "content": "x"}, dict(CALL, content=None)],
    "parts": [{"role": "user", "content": [{"type": "text", "text": " Look: "},
                                           {"type": "image"},
                                           {"type": "text", "text": "what is it?"}]}],
    "wrong order": [{"role": "assistant", "content": "I begin"},
                    {"role": "user", "content": "No"}],
    "two systems": [{"role": "system", "content": "A"}, {"role": "system", "content": "B"},
                    {"role": "user", "content": "C"}],
    "empty": [],
}


def case(name, template, variables):
    text, error = oracle.render(template, variables)
    out = {"name": name, "template": template, "variables": variables}
    if error is None and " at 0x" in text:
        raise SystemExit(f"{name}: prints an address")
    return {**out, "error": error.split(":")[0]} if error else {**out, "text": text}


def main():
    cases = []
    with open(os.path.join(HERE, "snippets.txt"), encoding="utf-8") as file:
        for i, template in enumerate(file.read().split("\n=====\n")):
            entry = case(f"snippet {i + 1}", template, VARIABLES)
            del entry["variables"]
            cases.append(entry)
    for path in sorted(glob.glob(os.path.join(HERE, "*.jinja"))):
        with open(path, encoding="utf-8") as file:
            template = file.read()
        name = os.path.basename(path)[:-6]
        for title, messages in CONVERSATIONS.items():
            for tools in (None, WEATHER):
                for more in ({}, {"add_generation_prompt": False, "enable_thinking": False}):
                    variables = {"messages": messages, "tools": tools, "documents": None,
                                 "add_generation_prompt": True, "bos_token": "<s>",
                                 "eos_token": "</s>", **more}
                    entry = case(f"{name}: {title}, {'tools' if tools else 'no tools'}"
                                 f"{', no prompt' if more else ''}", template, variables)
                    entry["template"] = name
                    cases.append(entry)
    with open(os.path.join(HERE, "cases.json"), "w", encoding="utf-8") as file:
        json.dump({"about": "written by make_cases.py", "now": oracle.NOW,
                   "variables": VARIABLES, "cases": cases}, file, ensure_ascii=False, indent=0)
        file.write("\n")
    print(len(cases), "cases,", sum("error" in c for c in cases), "of them errors")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Three boxes find each other, split one model and give one answer.

    cluster.py SKEIN [--long]

Three namespaces on a bridge, no --peer. Meeting: all see each other within 3 s of the last start, over
5 rounds (20 in the long form), the worst is told. Same answer: with one seed, prompts to each of the
three, to one node alone and again to all give the same bytes, for both engines.
"""
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "harness"))
from netns import Node, enter_namespace, long_form, meet, now, run_cases  # noqa: E402

MEET_LIMIT = 3
PROMPT = "Once upon a time"
PLAIN = ("--seed", "7", "--temperature", "0.8", "--max-tokens", "48", "--quiet")
# All that goes to the sampler of the head, wherever that is.
OPTIONS = PLAIN + ("--frequency-penalty", "1", "--presence-penalty", "1", "--typical-p", "0.9",
                   "--dry-multiplier", "0.8", "--xtc-probability", "0.5", "--xtc-threshold", "0.02",
                   "--repeat-last-n", "100", "--min-p", "0")
# What makes the demo model need all three: openblas wants more working memory.
MEMORY = {"native": "13M", "openblas": "14700K"}


def meeting(cluster):
    worst, chance, slowest = 0, random.Random(1), 0
    rounds = 20 if long_form() else 5
    for _ in range(rounds):
        nodes = [cluster.start(i) for i in chance.sample(range(3), 3)]
        worst = max(worst, meet(nodes))
        for node in nodes:
            node.ready()
        slowest = max(slowest, now() - nodes[-1].started)
        for node in nodes:
            node.stop()
    limit = MEET_LIMIT * float(os.environ.get("SKEIN_SLOW", "1"))
    assert worst <= limit, f"worst of {rounds} rounds: {worst:.2f} s, ready by {slowest:.2f} s"
    return f"{rounds} rounds, worst {worst:.2f} s after the last start"


def answers_of(cluster, engine):
    nodes = [cluster.start(i, "--memory", MEMORY[engine], "--context", "256", "--engine", engine) for i in range(3)]
    for node in nodes:
        node.ready()
    meet(nodes)
    texts = [node.prompt("tiny", PROMPT, *OPTIONS).good() for node in nodes for _ in range(2)]
    stages = max(len(node.ready_stages()) for node in nodes)
    for node in nodes:
        node.stop()
    alone = cluster.start(0, "--context", "256", "--no-discovery", "--engine", engine,
                          name="alone").ready()
    texts += [alone.prompt("tiny", PROMPT, *OPTIONS).good() for _ in range(2)]
    plain = alone.prompt("tiny", PROMPT, *PLAIN).good()
    assert plain != texts[0], f"the sampling options changed nothing: {plain}"
    alone.stop()
    return texts, stages


def same_answer(cluster, engine):
    texts, stages = answers_of(cluster, engine)
    assert len(set(texts)) == 1, f"{len(set(texts))} different answers: {set(texts)}"
    assert stages == 3, f"the model was split over {stages}"
    return f"{len(texts)} answers of {len(texts[0])} bytes alike, over {stages} stages and one"


def same_answer_native(cluster):
    return same_answer(cluster, "native")


def same_answer_openblas(cluster):
    return same_answer(cluster, "openblas")


if __name__ == "__main__":
    enter_namespace()
    Node.binary = os.path.abspath(sys.argv[1])
    run_cases([meeting, same_answer_native, same_answer_openblas])

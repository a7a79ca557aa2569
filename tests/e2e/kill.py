#!/usr/bin/env python3
"""A node dies mid-answer: the client hears of it within 5 s, the next prompt works on who is left.

    kill.py SKEIN

Killed are a worker and the head; a worker that only falls silent (SIGSTOP) counts as dead too, and
comes back as a member when it goes on. The client's node is never the one that dies.
"""
import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "harness"))
from netns import SLOW, Node, enter_namespace, meet, now, run_cases  # noqa: E402

LIMIT = 5
# Two hold the demo model, one does not.
SHARE = ("--memory", "18M", "--context", "1024")


def three(cluster):
    nodes = [cluster.start(i, *SHARE) for i in range(3)]
    for node in nodes:
        node.ready()
    meet(nodes)
    return nodes


def lose(nodes, front, victim_of, number):
    """Starts an endless answer at `front`, hits a stage's node with the signal, and judges what the
    client hears. Returns (the victim, seconds until the client's end)."""
    answer = front.prompt("tiny", "Once upon a time", "--ignore-end", "--seed", "1")
    answer.wait_text(40)
    stages = front.ready_stages() or next(filter(None, (n.ready_stages() for n in nodes)))
    names = [name for name, _, _ in stages]
    assert len(names) > 1, f"the model was not split: {stages}"
    victim = next(node for node in nodes if node.name == victim_of(names))
    assert victim is not front, "the client's own node would be hit"
    victim.kill(number)
    hit = now()
    code, _, words = answer.finish(30)
    took = now() - hit
    assert code not in (0, None), f"the answer ended well without {victim.name}"
    assert code > 0, f"the client died of signal {-code}"
    assert words.strip(), "no word to the user"
    assert took <= LIMIT * SLOW, f"{took:.1f} s until the client heard of it: {words}"
    return victim, took, words.strip().splitlines()[-1]


def next_prompt(nodes, victim):
    for node in nodes:
        if node is not victim:
            node.prompt("tiny", "The little dog", "--max-tokens", "16", "--seed", "1").good(30)


def worker_killed(cluster):
    nodes = three(cluster)
    victim, took, words = lose(nodes, nodes[0], lambda names: names[-1], signal.SIGKILL)
    victim.release()
    next_prompt(nodes, victim)
    return f"heard after {took:.2f} s: {words}"


def head_killed(cluster):
    nodes = three(cluster)
    # The node asked first owns the instance; a prompt at another one goes through it.
    nodes[0].prompt("tiny", "Hello", "--max-tokens", "4").good()
    head = next(filter(None, (node.ready_stages() for node in nodes)))[0][0]
    front = next(node for node in nodes if node.name != head)
    victim, took, words = lose(nodes, front, lambda names: names[0], signal.SIGKILL)
    victim.release()
    next_prompt(nodes, victim)
    return f"heard after {took:.2f} s: {words}"


def worker_silent(cluster):
    nodes = three(cluster)
    victim, took, words = lose(nodes, nodes[0], lambda names: names[-1], signal.SIGSTOP)
    next_prompt(nodes, victim)
    victim.kill(signal.SIGCONT)
    end = now() + 20 * SLOW
    while now() < end and any(len(node.alive_names()) < 3 for node in nodes):
        time.sleep(0.1)
    assert all(len(node.alive_names()) == 3 for node in nodes), "it is not taken back"
    return f"heard after {took:.2f} s: {words}; taken back when it went on"


if __name__ == "__main__":
    enter_namespace()
    Node.binary = os.path.abspath(sys.argv[1])
    run_cases([worker_killed, head_killed, worker_silent])

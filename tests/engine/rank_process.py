"""The main thread of an engine in a process of its own, since its signals are real."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

START = """
import os, random, signal, sys, threading, time
from queue import SimpleQueue
from ipmpi.engine.namespace import Namespace
from ipmpi.engine.itemqueue import Given
from ipmpi.engine.rank import Job, Rank
from ipmpi.engine.together import Part
from ipmpi.errors import TaskAborted
from ipmpi.protocol import operations as o

class Teams:
    def __init__(self): self.calls = []
    def join(self, ranks, serial): self.calls.append("join"); return f"comm {serial}"
    def renew(self, ranks, serial): return f"comm {serial}"
    def leave(self, text): self.calls.append(text)
    def end(self): self.calls.append("end")

sys.setswitchinterval(0.0005)  # as ipengine sets it: the agent interrupts what computes
outside = []
teams = Teams()
rank = Rank(Namespace(0), outside.append, 0, lambda: teams)
rank.install_signals()
answers = SimpleQueue()

def string_task(source, group=1):
    program = rank.runner.program(o.encode(o.StringTaskOperation(source, [])))
    return lambda index: (Given(group, program, None, 99), index, b"")

def outcomes():
    return [(given.group, index, kind) for given, index, (kind, _), _ in rank.items.collect()]

rank.items.on_finished = lambda: [answers.put(o) for o in outcomes()]

def submit(name, source):
    def done(answer):
        outcome = o.decode_outcome(answer.outcome)
        answers.put((name, answer.ok, getattr(outcome, "type_name", "")))
    rank.submit(Job("execute", o.encode(o.Execute(source)), (), done))

def agent(work):
    failures = []
    def run():
        try:
            work()
        except BaseException as error:
            failures.append(error)
        finally:
            rank.stop()
    thread = threading.Thread(target=run)
    thread.start()
    rank.run()
    thread.join()
    if failures:
        raise failures[0]
    print("main thread ended by itself", outside)
"""


def run(code: str, root: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", START + code],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout

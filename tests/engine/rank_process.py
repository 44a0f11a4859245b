"""A rank in the main thread of a process of its own, since its signals are real; its agent is a thread there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

START = """
import os, pickle, random, signal, socket, sys, threading, time
import itertools
import cloudpickle
from queue import SimpleQueue
from ipmpi.engine.rank.controlblock import ControlBlock
from ipmpi.engine.agent.localrank import LastPacket, LocalRank, RankCommand
from ipmpi.engine.session.namespace import Namespace
from ipmpi.engine.rank.rank import Rank
from ipmpi.errors import TaskAborted
from ipmpi.protocol import messages as m, operations as o, packed, rankmessages as rm
from ipmpi.transport.loop import Loop
from ipmpi.transport.packets import RankSocket
from tests.node import hit_main_thread

class Teams:
    def __init__(self): self.calls = []
    def join(self, ranks, serial, has_lost): self.calls.append("join"); return f"comm {serial}"
    def renew(self, ranks, serial, has_lost): return f"comm {serial}"
    def end(self): self.calls.append("end")

sys.setswitchinterval(0.0005)  # an agent that is a thread would wait 5 ms for user code that computes
outside, teams, answers = [], Teams(), SimpleQueue()

class Agent:
    "What the rank says ends up in ``answers``: names, groups and indices, and what became of them."
    def __init__(self):
        self.loop = Loop()
    def rank_answered(self, local, command, message, body, large):
        answers.put((command.method, message.ok, getattr(o.decode_outcome(message.outcome), "type_name", "")))
    def rank_said(self, local, message):
        if isinstance(message, rm.RankHello): local.join(self, self)
        elif isinstance(message, rm.Signalled): outside.append(message.name)
    def rank_gone(self, local, reason): outside.append(reason)
    def properties_changed(self, local): pass
    def report(self, message, body):
        data = b"".join(body)
        if isinstance(message, m.TaskResults):
            failed = set(packed.unpack(message.failed))
            for at, index in enumerate(packed.unpack(message.indices)):
                answers.put((message.group, index, 2 if at in failed else 0))
        elif isinstance(message, m.TasksReturned):
            for index in packed.unpack(message.indices): answers.put((message.group, index, message.why))
        elif isinstance(message, m.TogetherEnded):
            failed = None if message.ok else packed.unpack_failure(data)[0]
            answers.put(("part", getattr(failed, "type_name", ""), getattr(failed, "text", "")))
    def report_large(self, message, answer):
        answers.put((message.group, message.index, 1))
        answer.drop()

node = Agent()
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
numbers = itertools.count(1)
local = LocalRank(node, ours, LastPacket(), hit_main_thread)
block, descriptor = ControlBlock.create()
rank = Rank(Namespace(0), RankSocket(theirs), block, 0, lambda left: teams)
rank._socket.send(rm.encode(rm.RankHello(0, 0, "host", os.getpid(), 1, [], True, "", "")), (descriptor,))
os.close(descriptor)
rank.install_signals()

def do(call):
    "What a call gives that is made in the agent's loop."
    given = SimpleQueue()
    def make():
        try: given.put((call(), None))
        except BaseException as error: given.put((None, error))
    node.loop.call_threadsafe(make)
    value, error = given.get(timeout=30)
    if error is not None: raise error
    return value

def submit(name, source):
    number = next(numbers)
    packet = rm.encode(rm.RunCommand(number, "execute", o.encode(o.Execute(source))))
    do(lambda: local.run(number, packet, RankCommand(number, name)))

def interrupt():
    do(local.interrupt)

def give(source, indices=(0,), group=1, pull=()):
    indices = list(indices)
    options = m.TaskOptions(o.encode(o.StringTaskOperation(source, list(pull))), "label")
    lengths = packed.pack([0] * len(indices))
    do(lambda: local.tasks.give(m.GiveTasks(group, options, packed.pack(indices), lengths, [0]), [b""]))

def cancel(group, indices):
    do(lambda: local.tasks.cancel(group, set(indices), interrupt=True))

def part(function, body=b"", index=0):
    data, key = cloudpickle.dumps(function), index.to_bytes(16, "big")
    do(lambda: local.send(m.DefineFunction(key, 0, len(data), [len(data)]), [data]))
    options = m.TaskOptions(o.encode(o.CallTaskOperation(key, together=True)), "label")
    do(lambda: local.parts.run(m.RunTogether(7, index, options, [0], [0, 1], 5, not body), [body] if body else []))

NO_ARGUMENTS = pickle.dumps(((), {}))

def agent(work):
    failures = []
    def run():
        try:
            work()
        except BaseException as error:
            failures.append(error)
        finally:
            do(lambda: local.stop(rm.Stop("the test is over")))
    loop = threading.Thread(target=node.loop.run, daemon=True)
    thread = threading.Thread(target=run)
    loop.start()
    do(lambda: None)
    while do(lambda: local.hello is None): pass
    thread.start()
    rank.run()
    thread.join()
    node.loop.stop()
    loop.join()
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
        timeout=25,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout

"""The main thread of an engine; its signals are real, so it runs in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from rank_process import run


def test_an_assertion_of_the_agent_fails_the_test(root: Path) -> None:
    with pytest.raises(AssertionError, match="this one is false"):
        run("agent(lambda: exec('assert False, \"this one is false\"'))", root)


def test_operations_run_in_order_in_the_main_thread(root: Path) -> None:
    out = run(
        """
def work():
    for n in range(5):
        submit(n, f"import threading; assert threading.current_thread() is threading.main_thread(); x = {n}")
    for n in range(5):
        assert answers.get() == (n, True, ""), n
    assert not rank.is_busy
agent(work)
""",
        root,
    )
    assert out == "main thread ended by itself []\n"


def test_interrupt_ends_a_sleep_and_leaves_the_next_command_alone(root: Path) -> None:
    out = run(
        """
def work():
    rank.interrupt()  # nothing runs: nothing happens
    started = SimpleQueue()
    rank.namespace.run("execute", o.encode(o.Execute("a = 1")), [])
    import builtins
    builtins.started = started.put
    submit("long", "import time; started(1); time.sleep(50)")
    submit("next", "a + 1")
    started.get()
    rank.interrupt()
    assert answers.get() == ("long", False, "KeyboardInterrupt")
    assert answers.get() == ("next", True, "")
agent(work)
""",
        root,
    )
    assert out == "main thread ended by itself []\n"


def test_signals_from_outside_are_reported(root: Path) -> None:
    out = run(
        """
def work():
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), number)
        submit(number, "1")
        answers.get()
agent(work)
""",
        root,
    )
    assert out == "main thread ended by itself ['SIGINT', 'SIGTERM']\n"


def test_a_thousand_interrupts_at_random_moments(root: Path) -> None:
    out = run(
        """
import builtins
def work():
    started = SimpleQueue()
    builtins.started = started.put
    chance = random.Random(1)
    hit = 0
    for n in range(1000):
        submit(("victim", n), "started(1)\\nfor i in range(%d): pass" % chance.choice([10, 2000, 100_000]))
        queued = n % 2
        if queued:
            submit(("bystander", n), "for i in range(200): pass")
        assert started.get() == 1
        for _ in range(chance.randrange(60)):
            pass
        rank.interrupt()
        name, ok, kind = answers.get()
        assert name == ("victim", n) and (ok or kind == "KeyboardInterrupt"), (name, ok, kind)
        hit += not ok
        spared = ok
        if not queued:
            submit(("bystander", n), "for i in range(200): pass")
        name, ok, kind = answers.get()
        assert name == ("bystander", n), name
        # One that was queued may have begun before interrupt() was called; it was what ran then.
        assert ok or (queued and spared and kind == "KeyboardInterrupt"), (queued, spared, kind)
    assert hit > 50, hit
    submit("last", "1")
    assert answers.get() == ("last", True, "")
agent(work)
""",
        root,
    )
    assert out == "main thread ended by itself []\n"


def test_a_signal_that_came_just_before_a_sleep_is_sent_again(root: Path) -> None:
    # The race itself cannot be forced from here; a signal that Python has not looked at stands for it.
    out = run(
        """
def work():
    import builtins
    started = SimpleQueue()
    builtins.started = started.put
    submit("long", "import time; started(1); time.sleep(50)")
    started.get()
    rank.interrupts._target = rank.interrupts.current
    assert rank.interrupts.send_again()
    assert answers.get() == ("long", False, "KeyboardInterrupt")
    assert not rank.interrupts.send_again()
    rank.interrupts._send_signal()  # an echo hits nobody
    submit("next", "1 + 1")
    assert answers.get() == ("next", True, "")
agent(work)
""",
        root,
    )
    assert out == "main thread ended by itself []\n"


def test_items_run_while_there_is_no_command(root: Path) -> None:
    out = run(
        """
def work():
    import builtins
    started, go = SimpleQueue(), SimpleQueue()
    builtins.started, builtins.go = started.put, go.get
    first, rest = string_task("started(1); go()"), string_task("order.append(1)", 2)
    builtins.order = []
    rank.give([first(0), *(rest(n) for n in range(3))])
    started.get()
    submit("overtakes", "order.append(0)")
    go.put(1)
    seen = [answers.get() for _ in range(5)]
    assert builtins.order == [0, 1, 1, 1], builtins.order
    assert seen == [(1, 0, 0), ("overtakes", True, ""), (2, 0, 0), (2, 1, 0), (2, 2, 0)], seen
agent(work)
""",
        root,
    )
    assert out == "main thread ended by itself []\n"


def test_an_interrupt_of_commands_spares_items(root: Path) -> None:
    out = run(
        """
def work():
    import builtins
    started, go = SimpleQueue(), SimpleQueue()
    builtins.started, builtins.go = started.put, go.get
    rank.give([string_task("started(1); go()")(0)])
    started.get()
    rank.interrupt()  # no command: nothing happens
    submit("waits", "1")
    rank.interrupt()  # it waits for the item, and is answered as if it had begun
    go.put(1)
    assert answers.get() == (1, 0, 0)
    assert answers.get() == ("waits", False, "KeyboardInterrupt")
    submit("next", "1")
    assert answers.get() == ("next", True, "")
agent(work)
""",
        root,
    )
    assert out == "main thread ended by itself []\n"


def test_items_are_taken_from_the_right_and_removed_and_interrupted(root: Path) -> None:
    out = run(
        """
def work():
    import builtins
    started = SimpleQueue()
    builtins.started = started.put
    long, short = string_task("import time; started(1); time.sleep(50)"), string_task("1", 2)
    items = [long(0), *(short(n) for n in range(6))]
    rank.give(items)
    started.get()
    assert rank.items.running()[0] == items[0]
    assert rank.items.take_back(2) == [items[6], items[5]]
    assert rank.items.remove(2, {1, 3, 5, 7}) == ([items[2], items[4]], [])
    assert rank.items.remove(1, {0}) == ([], [items[0]])
    assert not rank.items.overrule(items[1], TaskAborted("it does not run"))
    assert rank.items.overrule(items[0], TaskAborted("cancelled"))
    assert [answers.get() for _ in range(3)] == [(1, 0, 2), (2, 0, 0), (2, 2, 0)]
agent(work)
""",
        root,
    )
    assert out == "main thread ended by itself []\n"


def test_random_interrupts_of_items_and_commands_hit_what_they_are_meant_for(root: Path) -> None:
    out = run(
        """
import builtins
def work():
    started = SimpleQueue()
    builtins.started = started.put
    chance = random.Random(1)
    hit = 0
    for n in range(700):
        loops = chance.choice([10, 2000, 100_000])
        item = string_task(f"started(1)\\nfor i in range({loops}): pass")(n)
        rank.give([item, string_task("for i in range(200): pass", 2)(n)])
        if n % 2:
            submit(("command", n), "for i in range(200): pass")
        started.get()
        for _ in range(chance.randrange(60)):
            pass
        rank.items.overrule(item, TaskAborted("cancelled"))
        seen = sorted([answers.get() for _ in range(3 if n % 2 else 2)], key=str)
        if n % 2:
            assert seen.pop(0) == (("command", n), True, ""), n
        assert seen[1] == (2, n, 0), seen
        assert seen[0] in [(1, n, 0), (1, n, 2)], seen
        hit += seen[0][2] == 2
    assert hit > 50, hit
agent(work)
""",
        root,
    )
    assert out == "main thread ended by itself []\n"


def test_nothing_else_runs_before_a_large_result_has_gone(root: Path) -> None:
    out = run(
        """
def work():
    program = rank.runner.program(o.encode(o.StringTaskOperation("a = 'x' * 100000", ["a"])))
    rank.give([(Given(1, program, None, 0), 0, b""), string_task("1", 2)(0)])
    assert answers.get() == (1, 0, 1)
    submit("later", "1")
    time.sleep(0.02)  # if something else ran, it would most likely be seen by now
    assert answers.empty()
    rank.items.release()
    assert answers.get() == ("later", True, "")
    assert answers.get() == (2, 0, 0)
agent(work)
""",
        root,
    )
    assert out == "main thread ended by itself []\n"


TOGETHER = """
from ipmpi.engine.taskrunner import FAILED
from ipmpi.protocol.packed import unpack_failure
import cloudpickle, pickle
from ipmpi.protocol.messages import DefineFunction

def part(function, timeout=None):
    data = cloudpickle.dumps(function)
    rank.runner.define(DefineFunction(b"key", 0, len(data), []), data)
    program = rank.runner.program(o.encode(o.CallTaskOperation(b"key", together=True)))
    def done(outcome, seconds):
        failed = outcome[0] == FAILED
        answers.put(unpack_failure(outcome[1])[0] if failed else pickle.loads(outcome[1]))
    return Part((1, 0), program, [0, 1], 5, timeout, done)
NO_ARGUMENTS = pickle.dumps(((), {}))
"""


def test_a_part_joins_first_whatever_has_happened(root: Path) -> None:
    out = run(
        TOGETHER
        + """
def work():
    ran = part(lambda comm: comm + "!")
    ran.set_body(NO_ARGUMENTS)
    rank.submit(ran)
    assert answers.get() == "comm 5!"
    assert teams.calls == ["join", "end"], teams.calls
    off = part(lambda comm: 1)
    off.set_body(NO_ARGUMENTS)
    rank.performer.leave(off, "rank 1 failed")
    rank.submit(off)
    failed = answers.get()
    assert (failed.type_name, failed.text) == ("PeerError", "rank 1 failed")
    broken = part(lambda comm: 1)
    broken.set_body(b"no pickle")
    rank.submit(broken)
    assert answers.get().type_name == "UnpicklingError"
    assert teams.calls == ["join", "end"] * 3, teams.calls
agent(work)
""",
        root,
    )
    assert out == "main thread ended by itself []\n"


def test_a_part_that_waits_for_its_arguments_or_runs_can_be_called_out(root: Path) -> None:
    out = run(
        TOGETHER
        + """
def work():
    import builtins
    started = SimpleQueue()
    builtins.started = started.put
    waiting = part(lambda comm: 1)
    rank.submit(waiting)
    submit("behind", "1")
    while not rank.performer._running:
        time.sleep(0)
    rank.performer.leave(waiting, "its arguments do not come")
    assert answers.get().text == "its arguments do not come"
    assert answers.get() == ("behind", True, "")
    assert teams.calls == ["join", "its arguments do not come", "end"], teams.calls
    running = part(lambda comm: (__import__("builtins").started(1), time.sleep(50)))
    running.set_body(NO_ARGUMENTS)
    rank.submit(running)
    started.get()
    rank.interrupt()  # that is for commands
    assert rank.performer.overrule(running, TaskAborted("cancelled"))
    assert answers.get().type_name == "TaskAborted"
    assert not rank.performer.overrule(running, TaskAborted("cancelled"))
agent(work)
""",
        root,
    )
    assert out == "main thread ended by itself []\n"


def test_without_a_communicator_a_part_says_what_to_do(root: Path) -> None:
    out = run(
        TOGETHER
        + """
def work():
    rank.performer._make_teams = lambda: None
    rank.submit(part(lambda comm: 1))
    failed = answers.get()
    assert failed.type_name == "LauncherError" and "mpirun" in failed.text, failed
agent(work)
""",
        root,
    )
    assert out == "main thread ended by itself []\n"

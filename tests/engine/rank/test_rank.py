"""The main thread of an engine; its signals are real, so it runs in a process of its own."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

import pytest
from rank_process import run

from ipmpi.engine.rank.rank import _arguments


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
    assert not do(lambda: local.is_busy)
agent(work)
""",
        root,
    )
    assert out == "main thread ended by itself []\n"


def test_interrupt_ends_a_sleep_and_leaves_the_next_command_alone(root: Path) -> None:
    out = run(
        """
def work():
    interrupt()  # nothing runs: nothing happens
    started = SimpleQueue()
    submit("before", "a = 1")
    assert answers.get() == ("before", True, "")
    import builtins
    builtins.started = started.put
    submit("long", "import time; started(1); time.sleep(50)")
    submit("next", "a + 1")
    started.get()
    interrupt()
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
        interrupt()
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


def test_interrupts_of_what_displays_lose_no_packet(root: Path) -> None:
    out = run(
        """
import builtins
def work():
    started = SimpleQueue()
    builtins.started = started.put
    chance = random.Random(1)
    hit = 0
    for n in range(300):
        size = chance.choice([1, 200_000])  # in the packet, or in a file in memory
        show = f"display({{'text/plain': 'x' * {size}}}, raw=True)"
        source = f"started(1)\\nfor i in range(30): {show}"
        submit(("victim", n), source)
        submit(("bystander", n), "display(2); 1")
        assert started.get() == 1
        for _ in range(chance.randrange(500)):
            pass
        interrupt()
        name, ok, kind = answers.get(timeout=30)
        assert name == ("victim", n) and (ok or kind == "KeyboardInterrupt"), (name, ok, kind)
        hit += not ok
        spared = ok
        name, ok, kind = answers.get(timeout=30)
        assert name == ("bystander", n) and (ok or spared), name
    assert hit > 50, hit
agent(work)
""",
        root,
    )
    assert out == "main thread ended by itself []\n"


def test_a_display_that_cannot_be_sent_is_told(root: Path) -> None:
    out = run(
        """
def work():
    submit("full", '''
import os, io, contextlib
many = []
with contextlib.suppress(OSError):
    while True: many.append(os.dup(0))
err = io.StringIO()
with contextlib.redirect_stderr(err): display({"text/plain": "x" * 200_000}, raw=True)
for each in many: os.close(each)
assert "too many open files" in err.getvalue() and "ulimit -n" in err.getvalue(), err.getvalue()
display("now")
''')
    assert answers.get(timeout=30) == ("full", True, "")
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
agent(work)
""",
        root,
    )
    assert out == "main thread ended by itself []\n"


@pytest.mark.parametrize("left", [0, 1])
def test_a_rank_that_may_open_no_further_file_says_so(root: Path, left: int) -> None:
    """With none, the system leaves the file out of what the rank receives; with one, it cannot be mapped."""
    out = run(
        f"left = {left}"
        """
from ipmpi import serialize

def push():
    data = serialize.dumps({"a": b"x" * 3_000_000})
    sizes = [memoryview(each).nbytes for each in data]
    body = b"".join(data)
    os.pwrite(body_file, body, 0)
    number = next(numbers)
    packet = rm.encode(rm.RunCommand(number, "push", o.encode(o.Push()), sizes, True))
    do(lambda: local.run(number, packet, RankCommand(number, "push"), (body_file,)))
    return answers.get(timeout=30)

def answered(self, local, command, message, body, large):
    answers.put((message.ok, getattr(o.decode_outcome(message.outcome), "text", "")))

def work():
    many = []
    submit("full", '''
import os, contextlib
many = []
with contextlib.suppress(OSError):
    while True: many.append(os.dup(0))
for _ in range(%d): os.close(many.pop())
''' % left)
    Agent.rank_answered = answered
    assert answers.get(timeout=30)[-1] == ""
    ok, text = push()
    assert not ok
    assert text == (
        "the data of this push did not arrive: the engine has too many open files ([Errno 24] Too many open "
        "files): close some there, or start engines with a larger `ulimit -n`"
    ), text
    submit("free", "for each in many: os.close(each)")
    assert answers.get(timeout=30) == (True, "")
    assert push() == (True, "")
import resource
body_file = os.memfd_create("body")
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
agent(work)
""",
        root,
    )
    assert out == "main thread ended by itself []\n"


@pytest.mark.parametrize("files", [[], [0]])
def test_a_task_whose_arguments_cannot_be_mapped_is_told_why(
    files: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_how: object) -> object:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(mmap, "mmap", refuse)
    number = errno.EMFILE
    error = _arguments(files, [5])
    assert isinstance(error, OSError)
    assert "the engine has too many open files" in str(error)
    number = errno.ENOMEM
    assert "has too many open files" in str(_arguments([], [5]))
    error = _arguments([0], [5])
    assert isinstance(error, MemoryError)
    assert str(error) == "there is no memory for the arguments of this task ([Errno 12] Cannot allocate memory)"


def test_a_signal_that_does_not_come_in_time_is_sent_again(root: Path) -> None:
    # One that Python has not looked at before a sleep begins is noticed at its end; a lost one stands for it.
    out = run(
        """
def work():
    import builtins
    started = SimpleQueue()
    builtins.started = started.put
    submit("long", "import time; started(1); time.sleep(50)")
    started.get()
    sent = []
    local._send_signal = lambda pid: sent.append(pid) if not sent else hit_main_thread(pid)
    interrupt()
    assert sent == [os.getpid()]
    assert answers.get() == ("long", False, "KeyboardInterrupt")
    hit_main_thread(0)  # an echo hits nobody
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
    builtins.order = []
    give("started(1); go()")
    give("order.append(1)", range(3), 2)
    started.get()
    submit("overtakes", "order.append(0)")
    go.put(1)
    seen = [answers.get() for _ in range(5)]
    assert builtins.order == [0, 1, 1, 1], builtins.order
    assert seen[0] == (1, 0, 0), seen
    assert set(seen[1:]) == {("overtakes", True, ""), (2, 0, 0), (2, 1, 0), (2, 2, 0)}, seen
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
    give("started(1); go()")
    started.get()
    interrupt()  # no command: nothing happens
    submit("waits", "1")
    interrupt()  # it waits for the item, and is answered as if it had begun
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
    give("import time; started(1); time.sleep(50)")
    give("1", range(6), 2)
    started.get()
    assert do(local.running)[0] == "task label"
    do(lambda: local.tasks.take_back(2))
    assert sorted(answers.get() for _ in range(2)) == [(2, 4, "taken"), (2, 5, "taken")]
    cancel(2, {1, 3, 5, 7})
    assert sorted(answers.get() for _ in range(2)) == [(2, 1, "cancelled"), (2, 3, "cancelled")]
    cancel(1, {0})
    assert [answers.get() for _ in range(3)] == [(1, 0, 2), (2, 0, 0), (2, 2, 0)]
    assert do(local.running) is None
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
        give(f"started(1)\\nfor i in range({loops}): pass", [n])
        give("for i in range(200): pass", [n], 2)
        if n % 2:
            submit(("command", n), "for i in range(200): pass")
        started.get()
        for _ in range(chance.randrange(60)):
            pass
        cancel(1, {n})
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


def test_a_part_joins_first_whatever_has_happened(root: Path) -> None:
    out = run(
        """
def work():
    import builtins
    seen = builtins.seen = []
    part(lambda comm: __import__("builtins").seen.append(comm), NO_ARGUMENTS)
    assert answers.get() == ("part", "", "")
    assert (seen, teams.calls) == (["comm 5"], ["join", "end"])
    builtins.started, builtins.go = SimpleQueue(), SimpleQueue()
    submit("before", "started.put(1); go.get()")
    builtins.started.get()
    part(lambda comm: 1, NO_ARGUMENTS, index=1)
    do(lambda: local.parts.leave(m.LeaveTogether(7, 1, [0], "rank 1 failed")))
    builtins.go.put(1)
    assert answers.get() == ("before", True, "")
    assert answers.get() == ("part", "PeerError", "rank 1 failed")
    part(lambda comm: 1, b"no pickle", index=2)
    assert answers.get()[1] == "UnpicklingError"
    assert teams.calls == ["join", "end"] * 3, teams.calls
agent(work)
""",
        root,
    )
    assert out == "main thread ended by itself []\n"


def test_a_part_that_waits_for_its_arguments_or_runs_can_be_called_out(root: Path) -> None:
    out = run(
        """
def work():
    import builtins
    started = SimpleQueue()
    builtins.started = started.put
    part(lambda comm: 1)
    submit("behind", "1")
    while not rank._performer._running:
        time.sleep(0)
    do(lambda: local.parts.leave(m.LeaveTogether(7, 0, [0], "its arguments do not come")))
    assert answers.get() == ("part", "PeerError", "its arguments do not come")
    assert answers.get() == ("behind", True, "")
    part(lambda comm: (__import__("builtins").started(1), time.sleep(50)), NO_ARGUMENTS, index=1)
    started.get()
    interrupt()  # that is for commands
    do(lambda: local.parts.cancel(7, {1}, interrupt=True))
    assert answers.get()[1] == "TaskAborted"
    part(lambda comm: 1, NO_ARGUMENTS, index=2)
    assert answers.get() == ("part", "", "")
agent(work)
""",
        root,
    )
    assert out == "main thread ended by itself []\n"


def test_interrupts_while_a_part_waits_for_its_arguments_lose_no_packet(root: Path) -> None:
    out = run(
        """
def work():
    chance = random.Random(3)
    ended = []
    for n in range(300):
        part(lambda comm: 1, index=n)
        while chance.random() < 0.5 and not rank._performer._running:
            time.sleep(0)
        body = os.memfd_create("body")
        os.write(body, NO_ARGUMENTS)
        calls = [
            lambda: local.parts.cancel(7, {n}, interrupt=True),
            lambda: local.parts.body_arrived(7, n, [len(NO_ARGUMENTS)], body),
        ]
        chance.shuffle(calls)
        for call in calls:
            do(call)
        os.close(body)
        submit(n, "1")
        seen = [answers.get(timeout=20) for _ in range(2)]
        assert seen[1] == (n, True, ""), seen
        ended.append(seen[0][1])
    assert set(ended) <= {"", "TaskAborted", "PeerError", "KeyboardInterrupt"}, set(ended)
agent(work)
""",
        root,
    )
    assert out == "main thread ended by itself []\n"


def test_without_a_communicator_a_part_says_what_to_do(root: Path) -> None:
    out = run(
        """
def work():
    rank._performer._make_teams = lambda left: None
    part(lambda comm: 1, NO_ARGUMENTS)
    _, name, text = answers.get()
    assert name == "LauncherError" and "mpirun" in text, (name, text)
agent(work)
""",
        root,
    )
    assert out == "main thread ended by itself []\n"

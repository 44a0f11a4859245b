"""Arguments that are in the journal only: tasks run as if these were in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from farm_stage import ALICE, BOB, SET, Stage

from ipmpi import errors, limits
from ipmpi.controller.farm.arguments import Arguments
from ipmpi.controller.farm.order import Lifo, Order
from ipmpi.errors import JournalDamaged
from ipmpi.protocol import messages as m, packed


class WrittenStage(Stage):
    """Groups are in a journal before they are given, and ``most`` bytes of arguments stay in memory."""

    def __init__(self, most: int = 0, order: Order | None = None) -> None:
        super().__init__(order)
        self.written: dict[int, Arguments] = {}
        self.reads: list[int] = []
        self.farm.recovery.spill(self._read)
        self.farm.arguments.most = most

    def _read(self, serial: int) -> Arguments:
        self.reads.append(self.groups[serial][1])
        if serial not in self.written:
            raise JournalDamaged("the journal is damaged")
        return self.written[serial]

    def submit(self, group: int, payloads: Sequence[bytes] = (b"a",), client: int = ALICE, **options: Any) -> None:
        body = b"".join(payloads)
        lengths = packed.pack(map(len, payloads))
        message = m.SubmitTasks(group, m.TaskOptions(b"op", f"f{group}", **options), lengths, [len(body)])
        serial = self.farm.submit(client, message, [body], 0).serial
        self._know(client, group)
        self.written[serial] = Arguments(lengths, body)
        self.farm.recovery.is_written(serial)
        self.flush()

    def payloads(self) -> list[bytes | None]:
        """Of what the set was given, in order."""
        return [self.given[SET][task].payload for task in self.running[SET] if task in self.given[SET]]

    def finish(self) -> None:
        """The set runs all that there is, two tasks at a time."""
        for _ in range(1000):
            if not self.given[SET]:
                break
            self.answer(SET, list(self.given[SET]))
        assert not self.given[SET]


def test_all_run_in_order_each_with_its_own_arguments() -> None:
    stage = WrittenStage(most=60)
    for number in range(1, 21):
        stage.submit(number, [b"%d.%d" % (number, index) for index in range(3)])
        assert stage.farm.arguments.size <= 60
    stage.add_set(SET, 2)
    given = []
    while stage.given[SET]:
        given += stage.payloads()
        stage.answer(SET, list(stage.given[SET]))
        assert stage.farm.arguments.size <= 60
    assert given == [b"%d.%d" % (number, index) for number in range(1, 21) for index in range(3)]
    assert stage.reads == sorted(set(stage.reads)), "each once, in order"
    assert 1 not in stage.reads, "what came first stayed in memory"
    stage.check_empty()
    assert stage.farm.arguments.size == 0


def test_priorities_count_for_what_is_spilled() -> None:
    stage = WrittenStage()
    stage.submit(1, [b"low"] * 3)
    stage.submit(2, [b"high"] * 3, priority=5)
    stage.add_set(SET, 4)
    assert stage.payloads() == [b"high"] * 3 + [b"low"]
    stage.submit(3, [b"higher"], priority=9)
    stage.answer(SET, [(1, 0), (2, 0)])
    assert stage.payloads() == [b"high", b"high", b"higher", b"low"]
    stage.finish()
    stage.check_empty()


def test_the_last_first() -> None:
    stage = WrittenStage(order=Lifo())
    stage.submit(1, [b"1", b"22", b"333"])
    stage.submit(2, [b"4", b"55"])
    stage.add_set(SET, 4)
    assert stage.payloads() == [b"55", b"4", b"333", b"22"]


def test_tasks_that_wait_for_others_and_tasks_that_are_cancelled() -> None:
    stage = WrittenStage()
    stage.submit(1, [b"parent"])
    stage.submit(2, [b"child", b"other child"], after=[(1, 0)])
    stage.submit(3, [b"cancelled", b"not"])
    stage.abort(3, [0])
    stage.add_set(SET, 2)
    assert stage.payloads() == [b"parent", b"not"]
    stage.answer(SET, [(1, 0)])
    assert stage.payloads() == [b"not", b"child"]
    stage.finish()
    assert stage.kinds(3, 2) == ["TaskAborted", "ok"]
    assert stage.kinds(2, 2) == ["ok", "ok"]
    stage.check_empty()


@pytest.mark.parametrize("most", [0, 1000])
def test_tasks_that_come_back_run_again_with_their_arguments(most: int) -> None:
    stage = WrittenStage(most)
    stage.submit(1, [b"a", b"bb", b"ccc"], retries=1)
    stage.submit(2, [b"d"])
    stage.add_set(SET, 4)
    stage.farm.arguments.most = 0
    stage.submit(3, [b"other"])  # there is no room for what was given
    stage.return_(SET, [(1, 1)], "taken")
    stage.answer(SET, [(1, 0)], failed=[(1, 0)])
    payloads = {task: given.payload for task, given in stage.given[SET].items()}
    assert payloads == {(1, 1): b"bb", (1, 2): b"ccc", (2, 0): b"d", (3, 0): b"other"}
    stage.answer(SET, [(2, 0)])
    assert stage.given[SET][1, 0].payload == b"a"
    stage.finish()
    assert stage.kinds(1, 3) == ["ok"] * 3
    stage.check_empty()
    assert stage.farm.arguments.size == 0


def test_arguments_that_cannot_be_read_end_their_tasks_and_others_go_on() -> None:
    stage = WrittenStage()
    stage.submit(1, [b"a", b"b", b"c"])
    stage.submit(2, [b"child"], after=[(1, 2)])
    stage.submit(3, [b"well"])
    stage.written.pop(min(stage.written))
    stage.add_set(SET, 2)
    assert stage.payloads() == [b"well"]
    assert stage.kinds(1, 3) == ["JournalDamaged"] * 3
    assert stage.kinds(2, 1) == ["DependencyError"]
    stage.finish()
    stage.check_empty()


def test_a_client_may_leave_more_with_a_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TASK_BYTES", 10)
    monkeypatch.setattr(limits, "TASK_BYTES_WRITTEN", 30)
    stage = WrittenStage()
    stage.submit(1, [b"1234567890"] * 3)
    with pytest.raises(errors.Backpressure, match="wait for some"):
        stage.submit(2, [b"1"])
    stage.submit(2, [b"1"], client=BOB)


def test_nothing_is_spilled_without_a_journal() -> None:
    stage = Stage()
    stage.farm.arguments.most = 0
    stage.submit(1, [b"a"] * 3)
    assert [group.is_spilled for group in stage.farm._table.groups.values()] == [False]

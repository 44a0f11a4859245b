"""What a set knows of the commands that its ranks were given."""

from __future__ import annotations

import pytest

from ipmpi import limits
from ipmpi.engine.agent.commandbook import CommandBook
from ipmpi.protocol import messages as m

CLIENT = 7


@pytest.fixture
def book() -> CommandBook:
    book = CommandBook()
    book.is_on = True
    return book


def given(book: CommandBook, number: int, ranks: list[int], *, below: int = 1, stream: int = 0) -> None:
    message = m.Dispatch(
        100 + number, ranks, "execute", b"op", client=CLIENT, number=number, below=below, engines=len(ranks)
    )
    book.given(message, stream)


def answered(book: CommandBook, number: int, ranks: list[int], size: int = 0, *, is_kept: bool = True) -> m.Result:
    result = m.Result(100 + number, ranks, True, b"out", [size])
    book.answered(result, [bytes(size)], is_kept=is_kept)
    return result


def told(book: CommandBook, ranks: int = 3) -> list[m.AnyMessage]:
    book.forget_controller(True, True)
    *found, last = [message for message, _ in book.after_registration(range(ranks))]
    assert isinstance(last, m.CommandsHeld)
    assert last.is_last
    return found


def held(number: int, of: int, **ranks: list[int]) -> m.CommandsHeld:
    return m.CommandsHeld(100 + number, CLIENT, number, "execute", of, **ranks)


def test_what_runs_and_what_has_ended(book: CommandBook) -> None:
    given(book, 1, [0, 1, 2])
    first = answered(book, 1, [1])
    answered(book, 1, [2], is_kept=False)
    assert told(book) == [held(1, 3, running=[0], ended=[1], lost=[2]), first]


def test_what_its_client_has_is_forgotten(book: CommandBook) -> None:
    for number in (1, 2, 3):
        given(book, number, [0], below=number)
        answered(book, number, [0])
    assert [each.number for each in told(book) if isinstance(each, m.CommandsHeld)] == [3]


def test_a_command_that_another_controller_has_enlarged_is_told_as_it_is_now(book: CommandBook) -> None:
    """It was for one rank; for the other one, it comes from a controller that has it go to three engines."""
    given(book, 1, [0])
    book.given(m.Dispatch(101, [1], "execute", b"op", client=CLIENT, number=1, engines=3))
    assert told(book) == [held(1, 3, running=[0, 1])]


def test_output_comes_before_the_answer(book: CommandBook) -> None:
    given(book, 1, [0])
    printed = m.Output(101, [m.OutputBlock(m.STDOUT, 0, [0], b"hello\n")])
    book.printed(printed)
    result = answered(book, 1, [0])
    assert told(book) == [held(1, 1, ended=[0]), printed, result]


def test_a_command_whose_body_did_not_arrive_was_not_given(book: CommandBook) -> None:
    given(book, 1, [0, 1], stream=5)
    given(book, 2, [2], stream=6)
    book.arrived(6, True)
    book.arrived(5, False)
    assert told(book) == [held(1, 2), held(2, 1, running=[2])]


def test_answers_are_bounded_and_that_they_were_given_is_not_forgotten(
    book: CommandBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BOOK_BYTES", 10_000)
    for number in (1, 2, 3):
        given(book, number, [0])
        last = answered(book, number, [0], 6_000)
    assert told(book) == [held(1, 1, lost=[0]), held(2, 1, lost=[0]), held(3, 1, ended=[0]), last]


def test_with_too_many_commands_the_oldest_that_has_ended_goes_first_and_that_is_told(
    book: CommandBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BOOK_COMMANDS", 2)
    given(book, 1, [0])
    for number in (2, 3):
        given(book, number, [1])
        answered(book, number, [1])
    book.forget_controller(True, True)
    *found, (last, _) = book.after_registration(range(2))
    assert [message.number for message, _ in found if isinstance(message, m.CommandsHeld)] == [1, 3]
    assert last == m.CommandsHeld(is_last=True, forgotten=[(CLIENT, 2)])


def test_ranks_that_are_gone_are_not_told(book: CommandBook) -> None:
    given(book, 1, [0, 1])
    given(book, 2, [2])
    result = answered(book, 1, [0, 1])
    assert told(book, 1) == [
        held(1, 2, ended=[0]),
        m.Result(101, [0], True, b"out", result.sizes),
        held(2, 1),
    ]


@pytest.mark.parametrize(("had", "has"), [(False, True), (True, False), (False, False)])
def test_a_controller_without_the_journal_is_told_nothing(book: CommandBook, had: bool, has: bool) -> None:
    given(book, 1, [0])
    book.forget_controller(had, has)
    assert list(book.after_registration([0])) == []
    book.forget_controller(True, True)
    assert [message for message, _ in book.after_registration([0])] == [m.CommandsHeld(is_last=True)]


def test_commands_of_no_client_are_not_noted(book: CommandBook) -> None:
    book.given(m.Dispatch(1, [0], "unwatch", b""))
    assert told(book) == []


def test_one_long_command_does_not_fill_the_book(book: CommandBook, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client cannot say of those after it that they have ended; they go, the oldest first."""
    monkeypatch.setattr(limits, "BOOK_ENDED", 5)
    given(book, 1, [0])
    for number in range(2, 30):
        given(book, number, [1])
        answered(book, number, [1])
    book.forget_controller(True, True)
    *found, (last, _) = book.after_registration(range(2))
    assert [each.number for each, _ in found if isinstance(each, m.CommandsHeld)] == [1, *range(25, 30)]
    assert last == m.CommandsHeld(is_last=True, forgotten=[(CLIENT, 24)])


def test_what_is_told_of_clients_that_are_gone_is_bounded(
    book: CommandBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BOOK_ENDED", 5)
    for client in range(1, 3000):
        book.given(m.Dispatch(client, [0], "execute", b"op", client=client, number=1, below=1, engines=1))
        book.answered(m.Result(client, [0], True, b"out"))
    book.forget_controller(True, True)
    *found, (last, _) = book.after_registration([0])
    assert len(found) == 2 * 5
    assert len(m.encode(last)) < 10_000


def test_a_number_that_is_used_again_is_another_command(
    book: CommandBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BOOK_ENDED", 1)
    for serial in (1, 2, 3):
        book.given(m.Dispatch(serial, [0], "execute", b"op", client=CLIENT, number=9, below=9, engines=1))
        book.answered(m.Result(serial, [0], True, b"out"))
    assert [each.id for each in told(book) if isinstance(each, m.CommandsHeld)] == [3]


def test_a_body_that_is_given_up_is_given_to_nobody_before_a_restart_either(book: CommandBook) -> None:
    given(book, 1, [0, 1], stream=5)
    book.arrived(5, False)
    given(book, 1, [1], stream=6)
    book.arrived(6, True)
    assert told(book) == [held(1, 2, running=[1])]

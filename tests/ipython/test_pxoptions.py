from __future__ import annotations

from typing import Any

import pytest
from IPython.core.error import UsageError

from ipmpi.ipython.pxoptions import PX, PXCONFIG, PXRESULT, PxOptions, engines, items, parse, split_line


class Ten:
    """A client of engines 0 to 9."""

    def __getitem__(self, key: Any) -> Any:
        found = list(range(10))[key]
        return type("View", (), {"targets": found if isinstance(key, slice) else [found]})

    def __len__(self) -> int:
        return 10


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("all", "all"), ("3", [3]), ("-1", [9]), ("0:8:2", [0, 2, 4, 6]), ("::3", [0, 3, 6, 9]), (":2", [0, 1]),
        ("-2:", [8, 9]), ("0-3", [0, 1, 2, 3]), ("0,5", [0, 5]), ("[0, 5]", [0, 5]),
        ("0-2,7:", [0, 1, 2, 7, 8, 9]),
        ("1,0-2", [1, 0, 2]), ("[1]", [1]), ("::-3", [9, 6, 3, 0]),
    ],
)  # fmt: skip
def test_targets(text: str, ids: object) -> None:
    assert engines(text, Ten()) == ids


@pytest.mark.parametrize("text", ["", "a", "0:1:0", "1.5", "0..3", "0 1", "__import__('os')", "1,", "0:a"])
def test_what_is_no_targets_is_refused_with_what_is(text: str) -> None:
    with pytest.raises(UsageError, match=r"slices as in Python \(-t 0:8:2"):
        items(text)


def test_targets_that_name_no_engine() -> None:
    with pytest.raises(UsageError, match="names no engine: there are 10"):
        engines("20:30", Ten())


@pytest.mark.parametrize(
    ("line", "words", "code"),
    [
        ("a = 1", [], "a = 1"),
        ("-a", [], "-a"),
        ("-1", [], "-1"),
        ("-t 0 a = 1", ["-t", "0"], "a = 1"),
        ("--targets=0:2 print('x  y')", ["--targets=0:2"], "print('x  y')"),
        ("-a --fold off -x = 1", ["-a", "--fold", "off"], "-x = 1"),
        ("  -v -b  1 +  2", ["-v", "-b"], "1 +  2"),
        ("-nothing = 1", [], "-nothing = 1"),
    ],
)
def test_options_of_a_line(line: str, words: list[str], code: str) -> None:
    assert split_line(PX, line) == (words, code)


@pytest.mark.parametrize(
    ("signal", "mode"),
    [
        ("SIGINT", "ranks"),
        ("2", "ranks"),
        ("sigint", "ranks"),
        ("0", "detach"),
        ("9", "kill"),
        ("SIGTERM", "kill"),
    ],
)
def test_signals(signal: str, mode: str) -> None:
    assert parse(PX, f"--signal-on-interrupt {signal}").on_interrupt == mode


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("--signal-on-interrupt SIGUSR1", "interrupt engines (SIGINT, 2)"),
        ("--fold all", "invalid choice: 'all'"),
        ("--progress-after soon", "invalid float value"),
        ("-o 'a b'", "name of a variable"),
        ("--ranks x", "slices as in Python"),
        ("-t 'un", "No closing quotation"),
        ("--blok", "these are no options: --blok"),
    ],
)
def test_errors_say_what_is_wrong(line: str, told: str) -> None:
    with pytest.raises(UsageError) as info:
        parse(PX, line)
    assert told in str(info.value)


def test_options_over_defaults() -> None:
    defaults = PxOptions(fold="numeric", stream=True, verbose=True)
    assert parse(PX, "--no-stream --fold off").over(defaults) == PxOptions(fold="off", stream=False, verbose=True)


@pytest.mark.parametrize("parser", [PX, PXCONFIG, PXRESULT])
def test_each_option_has_a_text(parser: Any) -> None:
    assert all(action.help for action in parser._actions)

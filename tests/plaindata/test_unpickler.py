"""Pickles of plain data are opened, and all others refused, however they try to get at something else."""

from __future__ import annotations

import builtins
import collections
import copyreg
import dataclasses
import datetime
import decimal
import fractions
import functools
import importlib
import io
import os
import pickle
import resource
import struct
import subprocess
import sys
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipmpi import errors, serialize
from ipmpi.plaindata import names
from ipmpi.plaindata.refused import Refused
from ipmpi.plaindata.unpickler import allowed_names, loads

PLAIN: list[Any] = [
    None, True, 1, 10**50, 1.5, 1j, "x", "\ud800", b"x", bytearray(b"abc"), (1,), [1, [2]], {"a": {1: 2}}, {1, 2},
    frozenset([3]), range(4), slice(1, None, 2), collections.OrderedDict(a=1), collections.deque([1], 3),
    datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc), datetime.datetime(2020, 1, 1, fold=1),
    datetime.datetime(2020, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")), datetime.date(2020, 1, 1),
    datetime.time(3, 4, 5, 6), datetime.timedelta(3, 4, 5), datetime.timezone(datetime.timedelta(hours=2), "X"),
    fractions.Fraction(-1, 2), decimal.Decimal("1.25"), np.float64(1), np.str_("x"), np.str_(""), np.bool_(True),
    np.datetime64("2020"), np.timedelta64(3, "s"), np.dtype("f8"), np.dtype(">f4"), np.dtype("M8[us]"),
    np.dtype("U7"), np.dtype([("a", "f8"), ("b", "i4", (2, 3)), ("c", [("d", "S5")])], align=True),
    np.void(b"abc"),
]  # fmt: skip
ARRAYS: list[Any] = [
    np.arange(3.0), np.arange(10_000.0)[::2], np.arange(24_000.0).reshape(20, 30, 40).transpose(1, 0, 2),
    np.arange(10_000.0).reshape(100, 100).T, np.arange(3, dtype=">i2"), np.array("abc"), np.zeros((0, 3)),
    np.zeros(()), np.array([b"ab", "cdef"]), np.array(["2020"], "M8[ns]"), np.array([3], "m8[25s]"),
    np.zeros(3, [("a", "f8"), ("b", "i4")]), np.zeros(10_000, [("a", "f8"), ("b", "i4")]),
]  # fmt: skip
EXCEPTIONS: list[BaseException] = [
    ValueError("x"), OSError(2, "no", "f"), UnicodeDecodeError("utf8", b"x", 0, 1, "bad"), KeyboardInterrupt(),
    errors.EngineLost("x"), errors.PeerError("a", 3, "b"), errors.TaskTimeout("late"), ZeroDivisionError(),
]  # fmt: skip


def both_ways(value: object) -> list[list[Any]]:
    """As a command's answer, with buffers beside the pickle, and as a task's, in one piece."""
    return [serialize.dumps(value), [serialize.in_one_piece(serialize.dumps(value))]]


@pytest.mark.parametrize("number", range(len(PLAIN)))
def test_plain_data_is_opened(number: int) -> None:
    value = PLAIN[number]
    for segments in both_ways(value):
        got = loads(segments)
        assert type(got) is type(value)
        assert got == value
    if isinstance(value, np.dtype):
        assert (got.fields, got.flags, got.alignment) == (value.fields, value.flags, value.alignment)


@pytest.mark.parametrize("number", range(len(ARRAYS)))
def test_arrays_are_opened(number: int) -> None:
    value = ARRAYS[number]
    for segments in both_ways({"a": [value, value]}):
        got = loads(segments)["a"][1]
        assert (type(got), got.dtype, got.shape) == (np.ndarray, value.dtype, value.shape)
        np.testing.assert_array_equal(got, value)


@pytest.mark.parametrize("number", range(len(EXCEPTIONS)))
def test_exceptions_of_python_and_ipmpi_are_opened(number: int) -> None:
    value = EXCEPTIONS[number]
    value.where = [1]  # type: ignore[attr-defined]
    for segments in both_ways(value):
        got = loads(segments)
        usual = serialize.loads(segments)
        assert (type(got), got.args, vars(got)) == (type(value), value.args, vars(usual))


def test_answers_about_arrays_are_opened() -> None:
    """All records that engines may send, by the names that are in the table."""
    for module, name in names.OWN:
        kind = getattr(importlib.import_module(module), name)
        value = kind(*[1] * len(getattr(kind, "_fields", None) or dataclasses.fields(kind)))
        got = loads(serialize.dumps([value]))[0]
        assert (type(got), got) == (kind, value)


# --- attacks ----------------------------------------------------------------------------------------------------


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self._call = (function, args)

    def __reduce__(self) -> Any:
        return self._call


class Gives(Calls):
    """Pickles as a call with a state."""

    def __init__(self, *taken: Any) -> None:
        self._call = taken


def code(text: str) -> bytes:
    """A pickle in opcodes, as text."""
    return text.encode("latin-1")


MARK = "IPMPI_TEST_ATTACK"
"""An environment variable that attacks set."""

RUN = f"__import__('os').environ.__setitem__({MARK!r}, 'done')"


def dtype_with_state(spec: str, *state: Any) -> Any:
    return Gives(np.dtype, (spec, False, True), (3, *state))


def array_with_state(*state: Any) -> Any:
    reconstruct = np.zeros(2)[::2].__reduce_ex__(2)[0]
    return Gives(reconstruct, (np.ndarray, (0,), b"b"), state)


SCALAR = np.float64(1).__reduce__()[0]
FROM_BUFFER = np.zeros(1).__reduce_ex__(5)[0]
RECONSTRUCT = np.zeros(2)[::2].__reduce_ex__(2)[0]
FIELD = np.dtype("f8")

ATTACKS: dict[str, Callable[[], Any]] = {
    "os.system": lambda: Calls(os.system, f"echo {MARK}"),
    "eval": lambda: Calls(eval, RUN),
    "exec": lambda: Calls(exec, RUN),
    "a module": lambda: Calls(__import__, "os"),
    "subprocess": lambda: Calls(subprocess.Popen, ["true"]),
    "open": lambda: Calls(open, "/tmp/x", "w"),
    "type": lambda: Calls(type, "X", (), {}),
    "a lambda": lambda: (lambda: eval(RUN)),
    "a partial": lambda: functools.partial(eval, RUN),
    "a class of the user": lambda: Calls(Calls, 1),
    "a path": lambda: Path("a"),
    "a function of numpy": lambda: Calls(np.load, "x"),
    "numpy's own eval": lambda: Calls(np.vectorize, 1),
    "copyreg": lambda: Calls(copyreg.__newobj__, Calls),  # type: ignore[attr-defined]
    "copyreg.pickle": lambda: Calls(copyreg.pickle, int, eval),
    "an old object": lambda: Calls(copyreg._reconstructor, Calls, object, None),  # type: ignore[attr-defined]
    "nested": lambda: {"a": [1, (2, {3: Calls(eval, RUN)})]},
    "as an argument": lambda: Calls(ValueError, Calls(eval, RUN)),
    "as a key": lambda: {Calls(hash, 1): 1},
    "in an exception": lambda: ValueError(Calls(eval, RUN)),
    "as a state": lambda: Gives(ValueError, (), {"a": Calls(eval, RUN)}),
    "in an array of objects": lambda: np.array([Calls(eval, RUN), None]),
    "in a pickle inside": lambda: Calls(serialize.loads, [pickle.dumps(Calls(eval, RUN))]),
    "in a pickle inside of one": lambda: Calls(
        serialize.loads, [pickle.dumps(Calls(serialize.loads, [pickle.dumps(Calls(eval, RUN))]))]
    ),
    "pickle.loads": lambda: Calls(pickle.loads, pickle.dumps(Calls(eval, RUN))),
    "getattr": lambda: Calls(getattr, 1, "real"),
    "getattr of a class": lambda: Calls(getattr, zoneinfo.ZoneInfo, "from_file"),
    "getattr of an exception": lambda: Calls(getattr, ValueError, "__subclasses__"),
    "an array of objects": lambda: np.array([None, 1], object),
    "a dtype of objects": lambda: np.dtype("O"),
    "fields that are objects": lambda: np.dtype([("a", "O")]),
    "a scalar of objects": lambda: Calls(SCALAR, np.dtype("O"), pickle.dumps(1)),
    "a scalar of too few bytes": lambda: Calls(SCALAR, np.dtype("f8"), b"1"),
    "a scalar of another type": lambda: Calls(SCALAR, np.dtype("f8"), "12345678"),
    "fields outside of the element": lambda: dtype_with_state(
        "V8", "|", None, ("a",), {"a": (FIELD, 1 << 20)}, 8, 1, 0
    ),
    "a field before the element": lambda: dtype_with_state("V8", "|", None, ("a",), {"a": (FIELD, -64)}, 8, 1, 0),
    "an element of another size": lambda: dtype_with_state(
        "V8", "|", None, ("a",), {"a": (FIELD, 0)}, 1 << 30, 1, 0
    ),
    "subarrays larger than the element": lambda: dtype_with_state(
        "V8", "|", (FIELD, (1 << 20,)), None, None, 8, 1, 0
    ),
    "an array with fewer bytes": lambda: array_with_state(1, (1 << 40,), np.dtype("f8"), False, b"12345678"),
    "an array with objects for bytes": lambda: array_with_state(1, (1,), np.dtype("f8"), False, [1]),
    "an array of a negative shape": lambda: array_with_state(1, (-1, -1), np.dtype("f8"), False, b"12345678"),
    "an array of its own class": lambda: Calls(RECONSTRUCT, Calls, (0,), b"b"),
    "an array of any size": lambda: Calls(RECONSTRUCT, np.ndarray, (1 << 40,), b"b"),
    "the class of arrays": lambda: Calls(np.ndarray, (1 << 40,)),
    "a buffer too small": lambda: Calls(FROM_BUFFER, b"1234", np.dtype("f8"), (1 << 30,), "C"),
    "a buffer of objects": lambda: Calls(FROM_BUFFER, b"12345678", np.dtype("O"), (1,), "C"),
    "a masked array": lambda: np.ma.masked_array([1], [0]),
    "a bytearray of any size": lambda: Calls(bytearray, 1 << 40),
    "a list of any size": lambda: Calls(list, range(1 << 40)),
    "a fraction of any size": lambda: Calls(fractions.Fraction, "1e999999999"),
    "a deque without end": lambda: Calls(collections.deque, range(1 << 40)),
    "a set without end": lambda: Calls(set, range(1 << 40)),
    "a text of any size": lambda: Calls(str.__mul__, "a", 1 << 40),
    "str.format": lambda: Calls("{0.__class__}".format, 1),
    "a date that is none": lambda: Calls(datetime.datetime, b"\x07\xe4\x01\xff\xff\xff\xff\xff\xff\xff"),
    "a timezone of its own": lambda: Calls(datetime.datetime, 2020, 1, 1, 0, 0, 0, 0, Calls(eval, RUN)),
    "a class that is a value only": lambda: Calls(zoneinfo.ZoneInfo, "UTC"),
    "a group of exceptions": lambda: Gives(errors.CompositeError, ("m", [(1, Calls(eval, RUN), 2)])),
}  # fmt: skip

BY_HAND: dict[str, bytes] = {
    "GLOBAL": code(f"cbuiltins\neval\n(V{RUN}\ntR."),
    "INST": code(f"(V{RUN}\nibuiltins\neval\n."),
    "OBJ": code(f"(cbuiltins\neval\nV{RUN}\no."),
    "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.",
    "a dotted name": b"\x80\x04\x8c\x06ipmpi.\x8c\x0berrors.os.x\x93.",
    "a dotted name of an exception": b"\x80\x04\x8c\x08builtins\x8c\x19ValueError.__init__.x\x93.",
    "a module of errors": b"\x80\x04\x8c\x0cipmpi.errors\x8c\x08builtins\x93.",
    "a function of errors": b"\x80\x04\x8c\x0cipmpi.errors\x8c\x07text_of\x93.",
    "a name that is no text": b"\x80\x04K\x01K\x02\x93.",
    "a persistent id": b"Pabc\n.",
    "a binary persistent id": b"\x80\x04K\x01Q.",
    "an extension": b"\x80\x04\x82\x01.",
    "a large extension": b"\x80\x04\x84\x01\x00\x00\x00.",
    "a state of a class of exceptions": code("cbuiltins\nValueError\n(NV__str__\nI1\nsd.") + b"b.",
    "attributes of a class": code("cipmpi.errors\nEngineLost\n(N(V__init__\nI1\ndtb."),
    "a state of a list": code("(l(V__class__\nI1\ndb."),
    "slots of an exception": code("cbuiltins\nValueError\n(tR(N(V__class__\ncbuiltins\nKeyError\ndtb."),
    "a call of a number": b"\x80\x04K\x01)R.",
    "a call of a text": code("Vos.system\n(tR."),
    "a new object of a number": b"\x80\x04K\x01)\x81.",
    "a new object with names": code("cbuiltins\nValueError\n") + b")}\x8c\x01aK\x01s\x92.",
    "arguments that are no tuple": code("cbuiltins\nValueError\nI1\nR."),
    "a bytearray of many bytes": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",
    "a text of many bytes": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b".",
    "bytes of many bytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b".",
    "a frame of many bytes": b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b".",
    "a number of many digits": b"\x80\x04\x8b" + struct.pack("<i", (1 << 31) - 1) + b".",
    "a buffer that is not there": b"\x80\x05\x97.",
    "a read-only buffer of a number": b"\x80\x05K\x01\x98.",
    "no end": b"\x80\x04K\x01",
    "nothing": b"",
    "noise": b"\xff\xfe\x00",
    "a protocol of the future": b"\x80\x63K\x01.",
    "a memo that is not there": b"\x80\x04h\x05.",
    "an empty stack": b"\x80\x040.",
}


def attack(name: str) -> bytes:
    if name in BY_HAND:
        return BY_HAND[name]
    value = ATTACKS[name]()
    try:
        return pickle.dumps(value, 4)
    except (pickle.PicklingError, AttributeError):
        return serialize.in_one_piece(serialize.dumps(value))


@pytest.mark.parametrize("name", [*ATTACKS, *BY_HAND])
def test_attacks_are_refused(name: str) -> None:
    os.environ.pop(MARK, None)
    data = attack(name)
    before = {kind: dict(vars(kind)) for kind in (errors.EngineLost, ValueError, fractions.Fraction)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Refused):
        loads([data])
    assert MARK not in os.environ
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 200_000  # KiB
    assert before == {kind: dict(vars(kind)) for kind in before}


def test_the_attacks_are_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened as usual, they do what they are for."""
    for name in ("eval", "exec", "nested", "as an argument", "in a pickle inside", "GLOBAL", "INST", "OBJ"):
        monkeypatch.delenv(MARK, raising=False)
        pickle.loads(attack(name))
        assert os.environ.pop(MARK) == "done", name


def test_a_registered_extension_is_refused() -> None:
    copyreg.add_extension("builtins", "eval", 240)
    try:
        data = b"\x80\x04\x82\xf0\x8c\x011\x85R."
        assert pickle.loads(data) == 1
        with pytest.raises(Refused, match="a name by its number"):
            loads([data])
    finally:
        copyreg.remove_extension("builtins", "eval", 240)


def test_attributes_that_mean_something_to_python_are_left_out() -> None:
    error = ValueError("x")
    error.__notes__ = ["a note"]
    error.place = 3  # type: ignore[attr-defined]
    data = pickle.dumps(error, 4)
    assert loads([data]).__notes__ == ["a note"]
    planted = data.replace(b"place", b"__x__")
    assert not hasattr(loads([planted]), "__x__")


def test_truncated_and_changed_pickles_do_nothing_else() -> None:
    """Whatever bytes change, the result is plain data, or it is refused."""
    whole = pickle.dumps([np.arange(3.0), np.arange(6)[::2], datetime.date(2020, 1, 1), OSError(1, "a")], 4)
    for place in range(len(whole)):
        for changed in (whole[:place], whole[:place] + bytes([whole[place] ^ 0x21]) + whole[place + 1 :]):
            try:
                loads([changed])
            except Refused:
                continue


# --- what the user allows ---------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of the user that has imported functions of others."""
    (tmp_path / "model_of_test.py").write_text(
        "import os, enum\nfrom os import system\n"
        "class Model:\n    def __init__(self, a): self.a = a\n"
        "class Slots:\n    __slots__ = ('a',)\n"
        "class Colour(enum.Enum):\n    RED = 1\n"
        "class Own(Exception):\n    def __init__(self, a, b):\n        super().__init__(a)\n        self.b = b\n"
        "def made(a): return Model(a)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import model_of_test  # type: ignore[import-not-found]

    yield model_of_test
    del sys.modules["model_of_test"]


def test_a_class_that_is_allowed(model: Any) -> None:
    data = serialize.dumps([model.Model(np.arange(2)), model.Model({1})])
    with pytest.raises(Refused, match=r"model_of_test\.Model") as refused:
        loads(data)
    assert refused.value.name == "model_of_test.Model"
    for allow in ([model.Model], ["model_of_test.Model"], [model], ["model_of_test"]):
        assert loads(data, allowed_names(allow))[1].a == {1}
    with pytest.raises(Refused, match=r"model_of_test\.Slots"):
        loads(serialize.dumps(model.Slots()), allowed_names([model.Model]))


def test_all_of_a_module_that_is_allowed(model: Any) -> None:
    slots = model.Slots()
    slots.a = 5
    allowed = allowed_names([model])
    got = loads(serialize.dumps([slots, model.Colour.RED, model.Own(1, 2)]), allowed)
    assert (got[0].a, got[1], type(got[2]), got[2].b) == (5, model.Colour.RED, model.Own, 2)
    assert loads([pickle.dumps(Calls(model.made, 3))], allowed).a == 3


def test_what_an_allowed_module_has_imported_is_not_allowed(model: Any) -> None:
    for name in ("system", "os.system", "os", "Model.__init__.__globals__", "made.__globals__", "enum.Enum"):
        stream = io.BytesIO()
        stream.write(b"\x80\x04")
        for text in ("model_of_test", name):
            stream.write(b"\x8c" + bytes([len(text)]) + text.encode())
        with pytest.raises(Refused):
            loads([stream.getvalue() + b"\x93."], allowed_names([model]))


def test_what_is_inside_of_an_allowed_object_stays_restricted(model: Any) -> None:
    with pytest.raises(Refused, match="eval"):
        loads(serialize.dumps(model.Model(Calls(eval, RUN))), allowed_names([model]))


def test_tables_of_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"a": [1, 2], "b": [1.5, 2.5]})
    allowed = allowed_names([pandas, np.object_])
    for segments in both_ways(table):
        with pytest.raises(Refused, match="pandas"):
            loads(segments)
        pandas.testing.assert_frame_equal(loads(segments, allowed), table)


def test_arrays_of_objects_that_are_allowed() -> None:
    array = np.array([1, "a", None, {1}], object)
    with pytest.raises(Refused) as refused:
        loads(serialize.dumps(array))
    allowed = allowed_names([refused.value.name])
    assert loads(serialize.dumps(array), allowed).tolist() == array.tolist()
    with pytest.raises(Refused, match="eval"):
        loads(serialize.dumps(np.array([Calls(eval, RUN)])), allowed)
    for data in (
        pickle.dumps(array_with_state(1, (5,), np.dtype("O"), False, [1]), 4),
        pickle.dumps(array_with_state(1, (1,), np.dtype("O"), False, b"12345678"), 4),
        pickle.dumps(Calls(SCALAR, np.dtype("O"), b"12345678"), 4),
        pickle.dumps(Calls(FROM_BUFFER, b"12345678", np.dtype("O"), (1,), "C"), 4),
        pickle.dumps(np.dtype([("a", "O")]), 4),
    ):
        with pytest.raises(Refused):
            loads([data], allowed)


@pytest.mark.parametrize("name", ["os", "builtins", "builtins.eval", "cloudpickle", "ipmpi.serialize"])
def test_what_would_allow_everything_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="would let engines run any code here: unpickle='all' says so"):
        allowed_names([name])


def test_classes_that_come_with_their_code_cannot_be_allowed() -> None:
    class Local:
        pass

    with pytest.raises(ValueError, match="comes with its code"):
        allowed_names([Local])
    with pytest.raises(ValueError, match=r"Define it in a module that the engines import"):
        allowed_names(["__main__.Model"])


def test_exceptions_of_python_are_all_there() -> None:
    for kind in vars(builtins).values():
        if isinstance(kind, type) and issubclass(kind, Exception) and kind.__init__ is Exception.__init__:
            assert type(loads([pickle.dumps(kind("x"), 4)])) is kind

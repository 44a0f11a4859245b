"""The table of what may be given to the public calls of the clients: what is refused, and extremes that are taken.

A row is a kind of argument. ``PARAMETERS`` says of which kind the parameters of a name are, ``SPECIAL`` where one
differs from its namesakes. ``NOT_FOR_USERS`` are methods by which the parts of ipmpi call each other.
"""

from __future__ import annotations

import datetime
import io
import itertools
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ipmpi.client import StringTask

LONG = "a" * 1_000_000
NAN, INF, HUGE = math.nan, math.inf, sys.float_info.max
NOT_A_NUMBER = ["", "5", b"5", [], [1], {}, object(), 1j, np.arange(2), "\ud800", LONG, True, np.bool_(True)]
NOT_AN_INT = [*NOT_A_NUMBER, 1.5, NAN, INF, HUGE, np.float64(1)]
NOT_TEXT = [5, 1.5, NAN, None, b"a", [], {}, object()]
ZEROS = "__import__('numpy').zeros(3)"
NOT_SENT = ["\ud800", f"a{chr(0xDFFF)}"]


@dataclass
class Kind:
    """Arguments of one kind.

    Attributes:
        usual: one that is right.
        wrong: each is refused, before anything is sent.
        taken: extremes that are right all the same.
    """

    usual: Any
    wrong: list[Any]
    taken: list[Any]


def call(*args: Any) -> Any:
    return args


FUNCTION = Kind(call, [None, 5, "", "abs", b"", [], NAN, object(), LONG], [call, lambda *args, **named: 1])
SECONDS = Kind(None, [*NOT_A_NUMBER, 0, -1, NAN, -INF, INF, HUGE, 2**63, 2**64, 1e11],
               [1e-300, 3.1e9, np.float32(5), np.int64(5)])  # fmt: skip
WAIT = Kind(None, [*NOT_A_NUMBER, NAN], [0, -1, -INF, INF, HUGE, 2**64, np.float32(0), 10**400])
RETRIES = Kind(0, [*NOT_AN_INT, -1, 2**31, 2**63, 2**64, 10**400], [0, 2**31 - 1, np.int64(1), np.uint8(1)])
FLAG = Kind(False, [], [True, False, 0, 1, None, "", np.bool_(True)])
DEPEND = Kind(None, [5, "", b"", [], NAN, object(), LONG], [lambda properties: True])
ANY = Kind(1, [], [None, NAN, 2**64, "\ud800", "\0", np.arange(2)])

KINDS: dict[str, Kind] = {
    "targets": Kind(None, [-1, 2**31, 2**63, 2**64, 10**400, 1.5, NAN, INF, HUGE, True, np.bool_(True), "",
                         "x", "0",
                           "all\0", "\ud800", LONG, b"0", [0, 0], [0, -1], [2**64], [True], ["0"], [[0]], {0: 1},
                           object(), np.float64(1), [1.0], range(700_000), np.zeros((2, 2), int), np.arange(2.0)],
                    [0, [0], (0, 1), range(2), np.int64(1), np.arange(2), [np.int8(0)], "all", []]),
    "block": Kind(None, [0, 1, -1, NAN, "", "yes", [], object(), np.bool_(True)], [True, False]),
    "choice": Kind(False, [0, 1, -1, NAN, "", "yes", [0], [], object(), 2**64], []),
    "keys": Kind("a", [5, NAN, None, b"a", [5], ["a", None], [b"a"], object(),
                         ["a"] * 700_000, LONG * 2, *NOT_SENT],
                 ["", "a", ["a"], ("a", "b"), [], "\0", "not a name"]),
    "some keys": Kind(None, [5, NAN, [5], ["a", None], object(), ["a"] * 700_000, *NOT_SENT], [None, [], "a"]),
    "name": Kind("a", [*NOT_TEXT, *NOT_SENT], ["a", "", "\0"]),
    "program seconds": Kind(None, SECONDS.wrong, []),
    "published": Kind("x", [*NOT_TEXT, "", *NOT_SENT, LONG], []),
    "every": Kind(1, [*NOT_AN_INT, 0, -1, 2**64], []),
    "watch reduction": Kind(None, [5, NAN, b"a", [], {}, object(), "", "median", LONG], []),
    "program": Kind("", [*NOT_TEXT, *NOT_SENT, LONG], []),
    "source": Kind("a = 1", [*NOT_TEXT, *NOT_SENT, "a = '\0'", LONG * 3], ["", LONG, " \n" * 10_000]),
    "namespace": Kind({"a": 1}, [5, None, "a", ["a"], {5: 1}, {None: 1}, {b"a": 1}, NAN, object(), {"\ud800": 1},
                                 dict.fromkeys(map(str, range(200_000)))],
                                 [{}, {"": 1}, {"a": NAN}, {"a": 2**64}]),
    "functions": Kind({"f": call}, [5, None, {5: call}, {"f": 5}, {"f": len}, {"\ud800": call}], [{}]),
    "serialized": Kind({}, [5, None, {5: 1}, {"a": 1}, {"\ud800": 1}], [{}]),
    "dist": Kind("b", [None, 5, "", "c", b"b", NAN, [], "B", LONG, "\ud800"], ["b", "r"]),
    "sequence": Kind([1, 2], [5, None, NAN, object(), np.array(5), len],
                         [[], "", range(3), iter("ab"), {1, 2}, np.arange(2), LONG]),
    "sequences": Kind([[1, 2]], [5, None, NAN, [], (), "ab", [5], [[1], [1, 2]], object(), {1: 2}],
                         [[range(2)], ([],)]),
    "map function": Kind(call, [None, 5, b"abs", [], NAN, object(), "\ud800", "a\0"], [len]),
    "command number": Kind(None, [*NOT_AN_INT, 2**31, 2**63, 2**64], []),
    "count": Kind(1, [*NOT_AN_INT, 0, -1, 2**40, 2**64, 10**400], [np.int64(1)]),
    "properties": Kind({"a": 1}, [5, None, {5: 1}, {"\ud800": 1}, {"a": sys._getframe()}], [{}, {"a": NAN}]),
    "seconds before": Kind(60, [*NOT_A_NUMBER, None, 0, -1, NAN, INF, -INF, HUGE, 2**64], [1e-9, np.float32(5)]),
    "some seconds before": Kind(None, [*NOT_A_NUMBER, 0, -1, NAN, INF, -INF, HUGE, 2**64], [1e-9, np.float32(5)]),
    "folder": Kind(None, [5, NAN, b"a", [], object(), "", "\0", "\ud800", LONG], ["/f", "~/f", Path("f")]),
    "file": Kind(os.devnull, [5, None, NAN, b"a.py", [], object(), "", "no such file", "\0", "\ud800", LONG], []),
    "loss mode": Kind(None, [5, NAN, "", "die", "SHRINK", b"abort", [], ["abort"], object(), "\ud800", LONG],
                      ["shrink", "abort", "restart"]),
    "words": Kind((), ["--steps 5", [5], [None], 5, None, ["\ud800"], ["\0"], [LONG * 3]], [[], ["", "a"]]),
    "pending": Kind([], [5, None, "a", [5], object(), NAN], [[], ()]),
    "deferred id": Kind(None, ["", "no such", 5, None, NAN, [], LONG, "\ud800", 2**64], []),
    "furl": Kind(None, [5, NAN, None, b"", [], object(), "no such file", "pb://x", "ipmpi://", "\0", "\ud800",
                         LONG,
                        "ipmpi://" + LONG, "~nobody-here/x", "/"], []),
    "login": Kind(None, [5, NAN, b"a", [], object(), "\ud800", LONG, "-oProxyCommand=x", "a b", "\0"], []),
    "proxy": Kind(None, [5, NAN, b"a", [], object(), "\ud800", LONG, "ftp://x", "http://", "http://h:0x",
                         "http://h:99999"], []),
    "task id": Kind(0, [*NOT_AN_INT, None, -1, 5, 2**64], []),
    "task ids": Kind(0, [5, -1, 2**64, 1.5, NAN, True, "a", b"a", object(), [5], ["a"], [None], [True],
                         [0, 2**64]],
                     [0, [0], [], np.int64(0), np.arange(1)]),
    "all task ids": Kind(None, [5, -1, 2**64, 1.5, NAN, True, "a", object(), [5], ["a"], [True]], []),
    "after": Kind(None, [5, -1, 2**64, 1.5, NAN, True, "a", b"a", object(), [5], ["a"], [None], [True]], [0,
                         [], [0]]),
    "follow": Kind(None, [5, -1, 2**64, 1.5, NAN, True, "a", [0], [], (0,), object()], [0]),
    "task or future": Kind(0, [*NOT_AN_INT, None, -1, 5, 2**64, StringTask("1")], [0, np.int64(0)]),
    "task": Kind(StringTask("1"), [5, None, "a = 1", NAN, [], object(), call], []),
    "recovery task": Kind(None, [5, "a = 1", NAN, [], object(), call], []),
    "function": FUNCTION, "depend": DEPEND, "seconds": SECONDS, "wait": WAIT, "retries": RETRIES, "flag": FLAG,
    "any": ANY,
    "priority": Kind(0, [*NOT_AN_INT, 2**31, -(2**31) - 1, 2**64, 10**400], [2**31 - 1, -(2**31), np.int32(5)]),
    "ranks": Kind(1, [*NOT_AN_INT, 0, -1, 65_537, 2**64], [np.int64(1)]),
    "pull": Kind(None, [5, NAN, [5], ["a", None], {"a"}, object(), *NOT_SENT, ["a"] * 700_000], ["a", ["a"], ()]),
    "pushed": Kind(None, [5, "a", [("a", 1)], object(), {5: 1}], [{}, {"a": 1}]),
    "args": Kind(None, [5, "a", {1}, object(), NAN], [[], (1,), [NAN]]),
    "kwargs": Kind(None, [5, "a", [("a", 1)], object(), {5: 1}], [{}, {"timeout": 1}]),
    "chunk": Kind(1, [*NOT_AN_INT, 0, -1, -(2**64)], [1, 2, 2**64, 10**400, np.int64(1)]),
    "some chunk": Kind(None, [*NOT_AN_INT, 0, -1, -(2**64)], [None, 2, 2**64, np.int64(1)]),
    "callback": Kind(None, [], [print]),
    "iterable": Kind([1, 2], [5, None, NAN, object(), np.array(5)], [[], range(2), (1,), np.arange(2), {1: 2}]),
    "rows": Kind([[1], [2]], [5, None, NAN, object()], [[], [(1,)]]),
    "arguments": Kind((), [5, None, NAN, object()], [[], (1,)]),
    "named arguments": Kind(None, [5, "a", NAN, object(), {5: 1}], [{}]),
    "futures": Kind([], [5, None, NAN, [5], ["a"], object()], [[]]),
    "index": Kind(0, [None, 1.5, NAN, b"a", True, 2**31, 2**64, 10**400, [0, 0],
                         [0, 1.5], object(), "\ud800", -99],
                  ["a", 0, -1, slice(0, 2), [0, 1], np.arange(2), np.int64(0), slice(None, None, 2**64)]),
    "some shown": Kind(None, [], [None, [], [0], range(2), {0}]),
    "expression": Kind("a", [*NOT_TEXT, "", "a b", "a = 1", "\0", "a\0", *NOT_SENT], ["a", " a ", "a + 1"]),
    "profile seconds": Kind(0.01, [*NOT_A_NUMBER, None, 0, -1, NAN, -INF, INF, HUGE, 2**63, 1e11],
                            [1e-300, np.float32(0.01)]),
    "one engine": Kind(0, [*NOT_AN_INT, None, -1, 2**31, 2**63, 2**64, 10**400], [np.int64(1)]),
    "some expression": Kind(None, [5, 1.5, NAN, b"a", [], {}, object(), "", "a b", "a = 1", "\0", *NOT_SENT], []),
    "array name": Kind(ZEROS, [*NOT_TEXT, "", "a b", "a = 1", "\0", "a\0", *NOT_SENT], [f" {ZEROS} "]),
    "block name": Kind("T", [*NOT_TEXT, "", "a b", "a = 1", "\0", "a\0", *NOT_SENT, "T[0]", "T.x"], ["T"]),
    "axis": Kind(None, [*NOT_AN_INT, 64, -65, 2**64], [0, -1]),
    "lengths": Kind(None, [5, "", "12", b"", [], [0], [-1], [1.5], ["1"], [True], [None], [[1]], NAN, object(),
                           LONG, [1] * 65, [2**64], itertools.count(1)], [[4], (np.int64(4),)]),
    "lengths without a place": Kind(None, [5, "", [1], (1, 2), NAN, object()], []),
    "names or objects": Kind("a", [5, None, NAN, b"a", object(), [5], {5: 1}, {"\ud800": 1}, *NOT_SENT],
                             [["a", "b"], {"a": 1}, {}, []]),
    "named targets": Kind(None, [-1, 2**64, 1.5, True, "x", [0, 0], [0, 1.5], np.zeros((2, 2), int)],
                          [0, [0], range(2), np.arange(2)]),
    "root engine": Kind(None, [*NOT_AN_INT, -1, 2**31, 2**63, 2**64, 10**400], [None, 0, np.int64(1)]),
    "reduction": Kind("sum", [None, 5, NAN, "", "SUM", b"sum", [], object(), sum, "mean", LONG, *NOT_SENT],
                      ["max", "band"]),
    "some name": Kind(None, [*[bad for bad in NOT_TEXT if bad is not None], *NOT_SENT], [None, "a"]),
    "new name": Kind(None, [*[bad for bad in NOT_TEXT if bad is not None], *NOT_SENT], ["a"]),
    "halo": Kind(0, [None, -1, 1.5, NAN, "", "1", b"1", [], [-1], [(1,)], [(1, 2, 3)], [(1, -1)], ["12"], [None],
                     True, 2**64, object(), LONG, itertools.count(1)], [1, [1], [(0, 2)], [[1, 2]]]),
    "number of engines": Kind(0, [*NOT_AN_INT, None, -1, 2**20, 2**64, 10**400], [0, 1, np.int64(1)]),
    "groups": Kind("type", [None, 5, True, "", "TYPE", [], NAN, object(), LONG], ["engine", "order"]),
    "lines": Kind(40, [*[bad for bad in NOT_AN_INT if bad is not None], 0, -1, -(2**64)], [None, 1, 2**64]),
    "stream": Kind(None, [5, "", "stdout", b"", [], NAN, object(), True], [io.StringIO()]),
    "output callback": Kind(None, [5, "", "print", b"", [], NAN, object(), True], [print]),
    "fold": Kind("exact", [None, 5, True, "", "EXACT", b"exact", [], NAN, object(), "\ud800", LONG],
                 ["numeric", "off"]),
    "internal": Kind(None, [], []),
    "cluster": Kind("", [5, NAN, b"a", [], object(), "no-such", "../x", "a/b", "\0", "\ud800", LONG], []),
    "initializer": Kind(None, [5, "", "abs", [], NAN, object()], [print]),
    "some targets": Kind(None, [[], -1, 2**64, 1.5, True, "x", [0, 0], [0, 1.5], np.zeros((2, 2), int)],
                         [0, [0], range(2), np.arange(2)]),
    "task name": Kind("", [*NOT_TEXT, *NOT_SENT, "\0", "a\nb", " ", LONG, "unnamed-1"], ["", "sweep é 1"]),
    "known task name": Kind("", [*NOT_TEXT, *NOT_SENT, ""], []),
    "shared role": Kind("tasks", [None, 5, NAN, b"tasks", "", "mec", "tc", "engine", "MONITOR", [], object()],
                        ["tasks"]),
    "lasting seconds": Kind(60, [*NOT_A_NUMBER, None, 0, -1, NAN, INF, -INF, HUGE, 2**64], [np.float32(5)]),
    "bound": Kind(None, [*NOT_AN_INT, -1, 2**64, 10**400], [None, 0, 2**53, np.int64(5)]),
    "note": Kind("", [5, NAN, None, b"a", [], object(), "\ud800", LONG], ["for Ada"]),
    "furl ids": Kind(None, [5, NAN, [5], [None], object(), b"a", {"a": 1}, ["\ud800"], [LONG], ["a"] * 2000],
                     [None, "7ab3", ["7ab3"], ()]),
    "set numbers": Kind(None, ["", "5", NAN, 1.5, [1.5], ["a"], [None], object(), 0, -1, [0], [2**64], [True]],
                        [None, 5, [5], ()]),
    "some folder": Kind(None, [5, NAN, b"a", [], object(), "", "\0", "\ud800", LONG], []),
    "bytes": Kind(2 << 30, [*NOT_AN_INT, None, 0, -1, 2**64, 10**400], []),
    "unpickle": Kind("all", [5, NAN, None, b"all", [], "", "ALL", "none", object(), "\ud800", LONG], []),
    "allow": Kind((), [5, None, "pandas", [5], [None], ["a b"], ["os"], ["builtins"], ["__main__.C"], [call],
                       ["\ud800"], NAN, object(), [""]], []),
    "moment": Kind(None, ["", "5", "yesterday", "25:00", "2h ago", "2w", "-1h", "LAST", "2026-13-01", b"2h", [],
                          {}, object(), NAN, -1, -INF, INF, HUGE, 2**64, True, 1j, "\ud800", "\0", LONG,
                          datetime.datetime.min, "0001-01-01"], [None]),
    "grace": Kind(5.0, [*NOT_A_NUMBER, NAN], [0, -1, INF, HUGE, 2**64]),
}  # fmt: skip

OPTIONS = {
    "retries": "retries", "priority": "priority", "timeout": "seconds", "expected": "seconds", "ranks": "ranks",
    "depend": "depend", "same_node": "flag", "name": "task name", "detach": "flag",
}  # fmt: skip
"""What ``**options`` may be."""

PARAMETERS: dict[str, str] = {
    **OPTIONS,
    "targets": "targets", "block": "block", "keys": "keys", "key": "name", "lines": "source", "dist": "dist",
    "namespace": "namespace", "seq": "sequence", "sequences": "iterable", "flatten": "flag", "func": "function",
    "f": "function", "fn": "function", "function": "function", "seconds": "seconds before", "controller": "choice",
    "native": "choice",
    "push_size": "count", "properties": "properties", "filename": "file", "i": "command number",
    "pendingResults": "pending", "deferredID": "deferred id", "furl_or_file": "furl", "ssh": "login",
    "proxy": "proxy",
    "taskid": "task id", "taskids": "task ids", "progress": "flag", "verbose": "flag", "task": "task",
    "after": "after", "follow": "follow", "ordered": "flag", "iterables": "iterable", "clear_before": "flag",
    "clear_after": "flag", "recovery_task": "recovery task", "expression": "source", "pull": "pull",
    "push": "pushed",
    "kwds": "named arguments", "program": "program",
    "initializer": "initializer", "initargs": "arguments", "callback": "callback",
    "error_callback": "callback", "iterable": "iterable",
    "chunksize": "chunk", "buffersize": "some chunk", "max_workers": "some chunk", "processes": "some chunk",
    "timeout": "seconds", "default": "any", "futures": "futures", "running": "flag", "grace": "grace",
    "wait": "flag", "cancel_futures": "flag", "return_exceptions": "flag", "session": "internal",
    "multiengine": "internal", "max_outstanding": "some chunk", "client": "internal", "value": "any",
    "folder": "folder",
    "cache": "flag", "cache_folder": "some folder", "cache_bytes": "bytes",
    "unpickle": "unpickle", "allow": "allow",
    "since": "moment",
    "stream": "stream", "on_output": "output callback", "fold": "fold",
}  # fmt: skip

SPECIAL: dict[str, str] = {
    "MultiEngineClient.run.args": "words",
    "Reference.name": "expression",
    "Monitor.name": "cluster",
    "ProgramMonitor.name": "cluster",
    "ProgramMonitor.timeout": "program seconds",
    "ProgramMonitor.watch.name": "published",
    "ProgramMonitor.watch.every": "every",
    "ProgramMonitor.watch.reduce": "watch reduction",
    "TaskClient.__init__.name": "cluster",
    "TaskClient.__init__.detach": "internal",
    "MultiEngineClient.__init__.name": "cluster",
    **{f"TaskClient.{method}.name": "task name" for method in ("submit", "imap", "map", "options")},
    "TaskClient.resume.name": "known task name",
    "TaskClient.forget.name": "known task name",
    "MultiEngineClient.on_loss.mode": "loss mode",
    "MultiEngineClient.restart.restore": "flag",
    "MultiEngineClient.share.role": "shared role",
    "MultiEngineClient.share.seconds": "lasting seconds",
    "MultiEngineClient.share.tasks": "bound",
    "MultiEngineClient.share.size": "bound",
    "MultiEngineClient.share.engines": "targets",
    "MultiEngineClient.share.note": "note",
    "MultiEngineClient.revoke.ids": "furl ids",
    "MultiEngineClient.rotate.now": "choice",
    "MultiEngineClient.admit.sets": "set numbers",
    "MultiEngineClient.turn_away.sets": "set numbers",
    "MultiEngineClient.restart.timeout": "wait",
    "MultiEngineClient.snapshot.names": "some keys",
    "MultiEngineClient.snapshot.before_walltime": "some seconds before",
    "MultiEngineClient.wait_for_engines.n": "number of engines",
    "MultiEngineClient.wait_for_engines.timeout": "wait",
    "TaskClient.wait_for_engines.n": "number of engines",
    "TaskClient.wait_for_engines.timeout": "wait",
    "MultiEngineClient.__getitem__.key": "index",
    "MultiEngineClient.complete.text": "source",
    "MultiEngineClient.profile.seconds": "profile seconds",
    "MultiEngineClient.profile.every": "profile seconds",
    "MultiEngineClient.debug.engine": "one engine",
    "MultiEngineClient.simulation.timeout": "program seconds",
    "MultiEngineClient.array.name": "array name",
    "MultiEngineClient.array.targets": "some targets",
    "MultiEngineClient.bcast.names": "names or objects",
    **{f"MultiEngineClient.{method}.targets": "named targets"
       for method in ("bcast", "reduce", "allreduce", "alltoall", "redistribute")},
    **{f"MultiEngineClient.{method}.name": "array name" for method in ("reduce", "allreduce", "alltoall")},
    **{f"MultiEngineClient.{method}.to": "name" for method in ("allreduce", "alltoall")},
    **{f"MultiEngineClient.{method}.root": "root engine" for method in ("bcast", "reduce")},
    **{f"MultiEngineClient.{method}.op": "reduction" for method in ("reduce", "allreduce")},
    "MultiEngineClient.reduce.to": "some name",
    "MultiEngineClient.redistribute.name": "block name",
    "MultiEngineClient.redistribute.axis": "axis",
    "MultiEngineClient.redistribute.grid": "lengths",
    "MultiEngineClient.redistribute.halo": "halo",
    "MultiEngineClient.redistribute.to": "new name",
    "MultiEngineClient.array.axis": "axis",
    "MultiEngineClient.array.grid": "lengths",
    "MultiEngineClient.array.comm": "some expression",
    "MultiEngineClient.array.offset": "some expression",
    "MultiEngineClient.array.shape": "lengths without a place",
    "MultiEngineClient.array.halo": "halo",
    "MultiEngineClient.describe.name": "source",
    "MultiEngineClient.describe.source": "flag",
    "MultiEngineClient.map.targets": "some targets",
    "MultiEngineClient.get_properties.keys": "some keys",
    "MultiEngineClient.has_properties.keys": "keys",
    "MultiEngineClient.push_function.namespace": "functions",
    "MultiEngineClient.push_serialized.namespace": "serialized",
    "MultiEngineClient.raw_map.seq": "sequences",
    "MultiEngineClient.raw_map.func": "map function",
    "MultiEngineClient.map.func": "map function",
    "MultiEngineClient.get_pending_deferred.block": "internal",
    "MultiEngineClient.scatter.targets": "some targets",
    "MultiEngineClient.raw_map.targets": "some targets",
    "MultiEngineMapper.map.func": "map function",
    "TaskClient.cached.f": "initializer",
    "TaskClient.run.block": "flag",
    "TaskClient.resubmit.task": "task or future",
    "TaskClient.get_task_result.block": "flag",
    "TaskClient.mapper.block": "flag",
    "TaskClient.parallel.block": "flag",
    "TaskClient.clear.taskids": "all task ids",
    "MapTask.args": "args",
    "MapTask.kwargs": "kwargs",
    "Executor.map.timeout": "wait",
    "Pool.map.chunksize": "some chunk",
    "Pool.map_async.chunksize": "some chunk",
    "Pool.starmap.chunksize": "some chunk",
    "Pool.starmap_async.chunksize": "some chunk",
    "Pool.starmap.iterable": "rows",
    "Pool.starmap_async.iterable": "rows",
    "Pool.apply.args": "arguments",
    "Pool.apply_async.args": "arguments",
    "PendingResult.get_result.block": "flag",
    "PendingResult.display.group_outputs": "groups",
    "PendingResult.display.max_lines": "lines",
    "PendingResult.display.printed": "flag",
    "PendingResult.display.ranks": "some shown",
    "MultiEngineMapper.targets": "some targets",
    **{f"{kind}.{method}.timeout": "wait"
       for kind, methods in {"AsyncResult": ("get", "wait"), "IMapIterator": ("next",), "MapResults": ("next",),
                             "PendingResult": ("exception", "get_result", "result", "wait"),
                             "TaskFuture": ("exception", "result")}.items() for method in methods},
}  # fmt: skip

NOT_FOR_USERS = {
    "TaskClient.call", "TaskClient.call_each", "TaskClient.map_cached", "TaskClient.define", "TaskClient.stream",
    "TaskFuture.found",
    *(f"{task}.{name}" for task in ("StringTask", "MapTask")
      for name in ("chain", "check", "label", "payload", "process_result", "settings", "terms")),
    "AsyncResult.__init__", "IMapIterator.__init__", "PendingResult.__init__", "PendingResult.check",
    "PendingResult.watch",
    *(f"{kind}.{name}" for kind in ("PendingResult", "TaskFuture") for name in ("set_exception", "set_result")),
    "MapResults.__init__", "MapResults.adopt", "MapResults.extend",
    "MapResults.batch_arrived", "MapResults.batch_failed", "MapResults.batch_undone",
    "MapResults.feed", "MapResults.large_arrived", "TaskFuture.__init__", "TaskFuture.arrived", "TaskFuture.check",
    "TaskFuture.place", "TaskFuture.reference",
    "TaskFuture.remember", "TaskFuture.submitted_call", "TaskFuture.trouble", "TaskFuture.undone",
    "TaskView.__init__",
}  # fmt: skip
"""Also constructors of what other calls return."""

CALLBACKS = {"PendingResult.add_callback", "PendingResult.add_done_callback", "TaskFuture.add_done_callback"}
"""Their arguments are passed on to ``concurrent.futures``, or to the callback."""

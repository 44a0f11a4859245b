"""Callables of a program's ``__main__``, and what another process makes of them."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path

import cloudpickle
import pytest

from ipmpi import byvalue

HERE = '''
import contextlib, functools, json, operator, sys
from ipmpi import serialize

scale = 3

@functools.lru_cache(maxsize=5, typed=True)
def cached(x): return scale * x

@functools.cache
def fibonacci(n): return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

@functools.wraps(operator.add)
def wrapped(a, b): return a - b

def decorator(function):
    @functools.wraps(function)
    def inner(*args): return function(*args) + scale
    return inner

@decorator
def decorated(x): return x

@functools.singledispatch
def generic(x): return "object"

@generic.register(int)
def _(x): return "int"

@generic.register(str)
def _(x): return generic(len(x)) + " of a str"

class Model:
    start = 2
    def method(self, x): return self.start + x
    partial = functools.partialmethod(method, 3)
    def __call__(self, x): return x + self.start
    @classmethod
    def make(cls, x): return cls.start * x
    @staticmethod
    def plain(x): return x
    @functools.lru_cache
    def cached(self): return self.start
    @functools.singledispatchmethod
    def kind(self, x): return "object"
    @kind.register
    def _(self, x: int): return "int"
    @functools.cached_property
    def slow(self): return self.start + 100

class Registered:
    """An object of a decorator that pickles as the name of what it decorates."""
    def __init__(self, function): self.function = function
    def __call__(self, x): return self.function(x)
    def __reduce__(self): return self.function.__name__

@Registered
def registered(x): return x * scale

@contextlib.contextmanager
def opened(): yield 7

def enter(manager):
    with manager() as value: return value

calls = {
    "cached": (cached, 4), "recursive": (fibonacci, 30), "wrapped": (wrapped, 5, 3), "decorated": (decorated, 1),
    "generic of an int": (generic, 1), "generic of another": (generic, 1.5), "generic of a str": (generic, "abc"),
    "method": (Model().method, 1), "partialmethod": (Model().partial,), "object": (Model(), 1),
    "classmethod": (Model.make, 4), "staticmethod": (Model.plain, 4), "cached method": (Model().cached,),
    "generic method": (Model().kind, 1), "cached property": (lambda: Model().slow,),
    "partial": (functools.partial(cached, 4),), "inside": (lambda: cached(1) + fibonacci(10),),
    "wraps of a cache": (functools.wraps(cached)(lambda x: cached(x)), 2), "by its name": (registered, 2),
    "contextmanager": (enter, opened), "methodcaller": (operator.methodcaller("method", 1), Model()),
    "in a list": (lambda fs: [f(2) for f in fs], [cached, registered]),
}
sys.stdout.buffer.write(serialize.in_one_piece(serialize.dumps(calls)))
'''

THERE = """
import json, sys
from ipmpi.engine.session.namespace import Namespace
calls = Namespace(0).home.loads([sys.stdin.buffer.read()])
print(json.dumps({name: call(*args) for name, (call, *args) in calls.items()}))
"""


def test_callables_of_the_main_program_work_in_another_process(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(HERE)
    sent = subprocess.run([sys.executable, str(script)], capture_output=True)
    assert sent.returncode == 0, sent.stderr.decode()
    done = subprocess.run([sys.executable, "-c", THERE], input=sent.stdout, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout) == {
        "cached": 12,
        "recursive": 832040,
        "wrapped": 2,
        "decorated": 4,
        "generic of an int": "int",
        "generic of another": "object",
        "generic of a str": "int of a str",
        "method": 3,
        "partialmethod": 5,
        "object": 3,
        "classmethod": 8,
        "staticmethod": 4,
        "cached method": 2,
        "generic method": "int",
        "cached property": 102,
        "partial": 12,
        "inside": 58,
        "wraps of a cache": 6,
        "by its name": 6,
        "contextmanager": 7,
        "methodcaller": 3,
        "in a list": [6, 6],
    }


def test_a_package_that_is_sent_by_value_takes_its_modules_along(monkeypatch: pytest.MonkeyPatch) -> None:
    package, inner = types.ModuleType("sent_package"), types.ModuleType("sent_package.tools")
    exec("def double(x):\n    return 2 * x\n", inner.__dict__)
    monkeypatch.setitem(sys.modules, "sent_package", package)
    monkeypatch.setitem(sys.modules, "sent_package.tools", inner)
    assert not byvalue.needs_value(inner.double)
    cloudpickle.register_pickle_by_value(package)
    try:
        assert byvalue.needs_value(inner.double)
        inner.double.__module__ = "sent_packages"
        assert not byvalue.needs_value(inner.double)
    finally:
        cloudpickle.unregister_pickle_by_value(package)

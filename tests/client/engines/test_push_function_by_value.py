from __future__ import annotations

import sys
import types

import pytest

from ipmpi import serialize
from ipmpi.client import MultiEngineClient


@pytest.fixture
def module_only_here():
    module = types.ModuleType("only_on_the_laptop")
    exec("factor = 3\ndef triple(x):\n    return factor * x\n", module.__dict__)
    sys.modules["only_on_the_laptop"] = module
    yield module
    del sys.modules["only_on_the_laptop"]


def test_a_pushed_function_needs_no_module_on_the_engines(session, module_only_here):
    mec = MultiEngineClient(session=session)
    session.held = True
    mec.push_function({"triple": module_only_here.triple}, block=False)
    (sent,) = session.sent
    body = [bytes(segment) for segment in sent.body]
    del sys.modules["only_on_the_laptop"]
    try:
        assert serialize.loads(body)["triple"](2) == 6
    finally:
        sys.modules["only_on_the_laptop"] = module_only_here
        session.release()

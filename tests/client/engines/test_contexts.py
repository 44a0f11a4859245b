from __future__ import annotations

import pytest

from ipmpi.client import MultiEngineClient
from ipmpi.client.engines.contexts import RemoteMultiEngine, body_after, remote
from ipmpi.errors import ClientError, CompositeError, StopLocalExecution


def test_the_body_runs_on_the_engines_and_not_here(mec: MultiEngineClient) -> None:
    x = "here"
    with RemoteMultiEngine(mec) as pr:
        remote()
        x = "there"  # a comment
    assert x == "here"
    assert mec["x"] == ["there"] * 4
    assert pr.result[0]["input"]["raw"].startswith('x = "there"')


def test_several_lines_keep_their_indentation(mec: MultiEngineClient) -> None:
    with RemoteMultiEngine(mec) as pr:
        remote()
        total = 0
        for i in range(3):
            total += i
    assert mec["total"] == [3] * 4
    assert len(pr.result) == 4


def test_errors_of_the_engines_and_of_the_body_come_through(mec: MultiEngineClient) -> None:
    with pytest.raises(CompositeError), RemoteMultiEngine(mec):  # noqa: PT012 - the body is what is tested
        remote()
        1 / 0  # noqa: B018
    with pytest.raises(KeyError), RemoteMultiEngine(mec):
        raise KeyError("here")


def test_without_remote_the_body_runs_here(mec: MultiEngineClient) -> None:
    with RemoteMultiEngine(mec) as pr:
        x = 3
    assert x == 3
    assert pr.result is None


def test_remote_outside_says_where_it_belongs() -> None:
    with pytest.raises(StopLocalExecution, match=r"first statement of"):
        remote()


def test_source_that_is_not_kept_is_explained() -> None:
    with pytest.raises(ClientError, match=r"source of this with-statement is not available"):
        body_after("", 1)


def test_nothing_after_remote_is_nothing_to_run() -> None:
    assert body_after("with a:\n    remote()\n", 2) == ""

"""The memory of arrays is the user's again as soon as they have arrived."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy
import pytest

from ipmpi.client import MultiEngineClient, TaskClient
from tests.security.cluster import Controller, controller, engines, wait_until

pytestmark = [pytest.mark.slow]

SIZE = 100_000_000
"""Not a multiple of what is acknowledged at a time."""

RELEASE = """
import time
until = time.monotonic() + 2
while memory and time.monotonic() < until:
    time.sleep(0.01)
    try:
        memory.clear()
    except BufferError:
        pass
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    home = tmp_path_factory.mktemp("release")
    with controller(home) as running, engines(home, 1):
        running.wait_engines(1)
        yield running


@pytest.fixture(scope="module")
def mec(cluster: Controller) -> Iterator[MultiEngineClient]:
    with MultiEngineClient(str(cluster.furl_file("mec"))) as client:
        yield client


def is_free(memory: bytearray) -> bool:
    """Whether nobody refers to it any more; if so, it is given back."""
    try:
        memory.clear()
    except BufferError:
        return False
    return True


def test_an_array_that_was_pushed_is_released(mec: MultiEngineClient) -> None:
    memory = bytearray(SIZE)
    mec.push({"a": numpy.frombuffer(memory, dtype=numpy.uint8)})
    gc.collect()
    wait_until(lambda: is_free(memory), "the end of an array that was pushed", 2)


def test_an_array_that_was_pushed_can_be_resized(mec: MultiEngineClient) -> None:
    array = numpy.zeros(SIZE, dtype=numpy.uint8)
    mec.push({"a": array})
    gc.collect()

    def is_resized() -> bool:
        try:
            array.resize(10)
        except ValueError:
            return False
        return True

    wait_until(is_resized, "an array that nobody else refers to", 2)


def test_arguments_of_a_task_are_released(cluster: Controller) -> None:
    memory = bytearray(SIZE)
    with TaskClient(str(cluster.furl_file("tc"))) as tc:
        assert tc.submit(len, numpy.frombuffer(memory, dtype=numpy.uint8)).result() == SIZE
        gc.collect()
        wait_until(lambda: is_free(memory), "the end of an array that was an argument", 2)


def test_an_array_that_was_pulled_is_released_at_its_engine(mec: MultiEngineClient) -> None:
    mec.execute(f"import gc, numpy; memory = bytearray({SIZE}); b = numpy.frombuffer(memory, dtype=numpy.uint8)")
    (pulled,) = mec.pull("b")
    assert len(pulled) == SIZE
    mec.execute("del b; gc.collect()")
    # One command, so that nothing but time passes between engine and controller.
    mec.execute(RELEASE)
    assert mec.pull("memory") == [b""]

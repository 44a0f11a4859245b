"""Parameters of a program that keeps them in its own memory."""

from __future__ import annotations

import ctypes
import pickle

import pytest

from ipmpi.engine.mpi.world import World
from ipmpi.steering.names import Parameters
from ipmpi.steering.program import Steering


def place_of(number: ctypes.c_double) -> memoryview:
    return memoryview(number).cast("B").cast("d")


def test_a_value_is_read_and_changed_where_the_program_keeps_it() -> None:
    number, params = ctypes.c_double(0.25), Parameters()
    params.declare("nu", 0.25, place_of(number))
    number.value = 0.5
    assert params["nu"] == 0.5
    params["nu"] = 2
    assert number.value == 2.0
    with pytest.raises(TypeError, match="nu is of type float, and 'x' is of type str"):
        params["nu"] = "x"


def test_they_travel_as_values_and_not_as_the_memory_of_the_program() -> None:
    params = Parameters()
    params.declare("nu", 0.25, place_of(ctypes.c_double(0.25)))
    buffers: list[pickle.PickleBuffer] = []
    packed = pickle.dumps(params, protocol=5, buffer_callback=buffers.append)
    assert not buffers
    arrived = pickle.loads(packed)
    assert type(arrived) is dict
    assert arrived == {"nu": 0.25}


def test_a_name_that_was_withdrawn_is_gone_and_its_memory_is_not_touched() -> None:
    number = ctypes.c_double(0.25)
    steering = Steering({}, World())
    steering.declare("nu", 0.25, place=place_of(number))
    steering.publish(T=number)
    steering.withdraw("nu")
    steering.withdraw("T")
    steering.withdraw("never")
    assert "nu" not in steering.params
    assert "T" not in steering.published
    with pytest.raises(AttributeError, match="'nu' is no parameter"):
        steering.params["nu"] = 1.0
    assert number.value == 0.25

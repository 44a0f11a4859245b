"""Whether files can be read, asked in one system call."""

from __future__ import annotations

import os

from ipmpi.transport.readable import Readable


def test_it_tells_whether_any_file_has_data_or_is_at_its_end() -> None:
    (first, to_first), (second, to_second) = os.pipe(), os.pipe()
    asked = Readable([first, second])
    assert not asked.any()
    os.write(to_second, b"x")
    assert asked.any()
    assert asked.any(), "asking reads nothing"
    os.read(second, 1)
    assert not asked.any()
    os.close(to_first)
    assert asked.any(), "at its end"
    for descriptor in (first, second, to_second):
        os.close(descriptor)

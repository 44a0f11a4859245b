from __future__ import annotations

from ipmpi.quantities import duration, sized, sized_of

GIB = 1 << 30


def test_numbers_in_words() -> None:
    times = (-1.0, 0.004, 0.31, 5.25, 41.4, 119.4, 150.0, 7830.0)
    assert [duration(each) for each in times] == [
        "0 ms", "4 ms", "310 ms", "5.2 s", "41 s", "119 s", "2 min 30 s", "2 h 10 min",
    ]  # fmt: skip
    assert [sized(each) for each in (0, 1023, 1536, 251 * GIB, 5 << 50)] == [
        "0 bytes", "1023 bytes", "1.5 KiB", "251 GiB", "5120 TiB",
    ]  # fmt: skip
    assert sized_of(3 << 20, GIB) == "0 of 1 GiB"
    assert sized_of(int(250.9 * GIB), 251 * GIB) == "250.9 of 251 GiB"

"""Guessed secrets, and what the sources do without: compression, and Python callbacks in TLS."""

from __future__ import annotations

import ast
import random
import secrets
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipmpi.errors import SecurityError
from ipmpi.protocol.handshake import DiallerHandshake, ListenerHandshake

ROOT = Path(__file__).resolve().parents[2]
SECRET = secrets.token_bytes(32)
EXPORTER = bytes(32)
GUESSES = 20_000


def admitted(guess: bytes) -> bool:
    hello = DiallerHandshake("mec", guess, EXPORTER, "ipmpi").hello()
    try:
        ListenerHandshake(EXPORTER, {"mec": SECRET}, "ipmpi").receive(hello)
    except SecurityError:
        return False
    return True


def test_no_guess_of_many_is_right_and_each_costs_little() -> None:
    """Guesses that are one bit away, and random ones. Over the network each costs a TLS handshake more."""
    near = [
        bytes(byte ^ (1 << bit % 8) * (place == bit // 8) for place, byte in enumerate(SECRET))
        for bit in range(256)
    ]
    began = time.process_time()
    assert not any(map(admitted, near))
    assert not any(admitted(random.randbytes(32)) for _ in range(GUESSES))
    assert time.process_time() - began < 60
    assert admitted(SECRET)


def test_the_time_of_a_refusal_does_not_tell_how_much_was_right() -> None:
    """The proof is a hash of the secret, so that a secret that begins right has another proof altogether."""
    first, last = bytes([SECRET[0] ^ 1]) + SECRET[1:], SECRET[:-1] + bytes([SECRET[-1] ^ 1])
    times: dict[bytes, list[int]] = {first: [], last: []}
    for _ in range(3_000):
        for guess in (first, last):
            hello = DiallerHandshake("mec", guess, EXPORTER, "ipmpi").hello()
            listener = ListenerHandshake(EXPORTER, {"mec": SECRET}, "ipmpi")
            began = time.perf_counter_ns()
            with pytest.raises(SecurityError):
                listener.receive(hello)
            times[guess].append(time.perf_counter_ns() - began)
    shorter, longer = sorted(statistics.median(each) for each in times.values())
    assert longer < 1.2 * shorter


def attributes(folder: str) -> Iterator[tuple[Path, ast.Attribute]]:
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                yield path, node


def test_nothing_that_comes_over_a_link_is_decompressed() -> None:
    """So there are no compression bombs."""
    assert not [path for path, node in attributes("ipmpi") if node.attr in ("decompress", "decompressobj")]


def test_tls_calls_no_python_function() -> None:
    """Hosts that allow no writable and executable memory cannot make such callbacks."""
    makes = (
        "set_alpn_select_callback",
        "set_info_callback",
        "set_keylog_callback",
        "set_tlsext_servername_callback",
    )
    assert not [path for path, node in attributes("ipmpi") if node.attr in makes]
    for path in (ROOT / "ipmpi").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "set_verify"
            ):
                assert len(node.args) + len(node.keywords) == 1, path

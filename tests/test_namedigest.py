"""Short stand-ins for long names."""

from __future__ import annotations

import pytest

from ipmpi.namedigest import digest_of


@pytest.mark.parametrize(
    ("text", "digest"),
    [("", "6c62272e07bb014262b821756295c58d"), ("a", "d228cb696f1a8caf78912b704e4a8964")],
    ids=["empty", "a"],
)
def test_it_is_the_published_function(text: str, digest: str) -> None:
    assert digest_of(text) == digest


def test_texts_that_differ_little_differ_in_it() -> None:
    texts = [f"pmix-{number}-tcp4://127.0.0.1:{port}" for number in range(100) for port in range(40000, 40100)]
    assert len({digest_of(text)[:16] for text in texts}) == len(texts)
    assert digest_of("\udcff") != digest_of("")  # as in variables that are not UTF-8

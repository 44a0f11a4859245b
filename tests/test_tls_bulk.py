"""Both ways of getting bytes out of OpenSSL do the same."""

from __future__ import annotations

import os
import time

import pytest
from OpenSSL import SSL

from ipmpi.tls import Identity, TlsClosed, TlsError, TlsSession, bulk

NOW = time.time()
IDENTITY = Identity.create(NOW)


@pytest.fixture(params=[bulk.DirectBulk, bulk.PublicBulk])
def pair(request, monkeypatch):
    monkeypatch.setattr("ipmpi.tls.session.bulk_of", request.param)
    dialler, listener = TlsSession.dialler(), TlsSession.listener(IDENTITY)
    done = False
    while not done:
        done = dialler.handshake()
        listener.receive_ciphertext(dialler.ciphertext_to_send())
        done = listener.handshake() and done
        dialler.receive_ciphertext(listener.ciphertext_to_send())
    dialler.check_peer(IDENTITY.fingerprint, NOW)
    return dialler, listener


@pytest.mark.parametrize("size", [1, 100, 16 * 1024, 16 * 1024 + 1, 300_000, 2_000_000])
def test_bytes_arrive(pair, size: int) -> None:
    dialler, listener = pair
    sent = os.urandom(size)
    dialler.write(sent)
    listener.receive_ciphertext(dialler.ciphertext_to_send())
    assert listener.read(size + 1) == sent
    assert listener.read() == b""


def test_a_small_read_leaves_the_rest(pair) -> None:
    dialler, listener = pair
    sent = os.urandom(700_000)
    dialler.write(sent)
    listener.receive_ciphertext(dialler.ciphertext_to_send())
    received = b""
    while piece := listener.read(1000):
        assert len(piece) <= 1000
        received += piece
    assert received == sent


def test_ciphertext_in_any_pieces(pair) -> None:
    dialler, listener = pair
    sent = os.urandom(100_000)
    dialler.write(sent)
    ciphertext = dialler.ciphertext_to_send()
    received = b""
    for start in range(0, len(ciphertext), 777):
        listener.receive_ciphertext(ciphertext[start : start + 777])
        received += listener.read()
    assert received == sent


def test_what_came_before_a_spoilt_record_is_read(pair) -> None:
    dialler, listener = pair
    dialler.write(b"before")
    good = dialler.ciphertext_to_send()
    dialler.write(b"after")
    bad = bytearray(dialler.ciphertext_to_send())
    bad[-1] ^= 1
    listener.receive_ciphertext(good + bytes(bad))
    assert listener.read() == b"before"
    with pytest.raises(TlsError, match="changed on the way"):
        listener.read()


def test_goodbye(pair) -> None:
    dialler, listener = pair
    dialler.write(b"last words")
    dialler.close()
    listener.receive_ciphertext(dialler.ciphertext_to_send())
    assert listener.read() == b"last words"
    with pytest.raises(TlsClosed):
        listener.read()


def test_this_pyopenssl_offers_the_fast_way() -> None:
    # If this fails after an upgrade, nothing is broken, but bulk data has become slower: see ipmpi/tls/bulk.py.
    connection = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
    assert isinstance(bulk.bulk_of(connection), bulk.DirectBulk)


def test_without_the_binding_the_public_way_is_taken(monkeypatch) -> None:
    connection = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
    monkeypatch.delattr(SSL, "_lib")
    assert isinstance(bulk.bulk_of(connection), bulk.PublicBulk)

"""Both ways of getting bytes out of OpenSSL do the same."""

from __future__ import annotations

import gc
import os
import pickle
import threading
import time
import weakref
from collections.abc import Callable

import numpy as np
import pytest
from OpenSSL import SSL

from ipmpi.tls import Identity, TlsClosed, TlsError, TlsSession, bulk

NOW = time.time()
IDENTITY = Identity.create(NOW)


@pytest.fixture(autouse=True)
def _own_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them is lent to another test."""
    monkeypatch.setattr(bulk, "_holder", [])


@pytest.fixture(params=[bulk.DirectBulk, bulk.PublicBulk])
def pair(request, monkeypatch):
    monkeypatch.setattr("ipmpi.tls.session.bulk_of", request.param)
    return _connected()


def _connected() -> tuple[TlsSession, TlsSession]:
    dialler, listener = TlsSession.dialler(), TlsSession.listener(IDENTITY)
    done = False
    while not done:
        done = dialler.handshake()
        listener.receive_ciphertext(dialler.ciphertext_to_send())
        done = listener.handshake() and done
        dialler.receive_ciphertext(listener.ciphertext_to_send())
    dialler.check_peer(IDENTITY.fingerprint, NOW)
    return dialler, listener


def ciphertext_of(session: TlsSession) -> bytes:
    """All that waits, copied."""
    pieces = []
    while piece := session.ciphertext_to_send():
        pieces.append(bytes(piece))
    return b"".join(pieces)


@pytest.mark.parametrize("size", [1, 100, 16 * 1024, 16 * 1024 + 1, 300_000, 2_000_000])
def test_bytes_arrive(pair, size: int) -> None:
    dialler, listener = pair
    sent = os.urandom(size)
    dialler.write(sent)
    listener.receive_ciphertext(ciphertext_of(dialler))
    assert listener.read(size + 1) == sent
    assert listener.read() == b""


def test_a_small_read_leaves_the_rest(pair) -> None:
    dialler, listener = pair
    sent = os.urandom(700_000)
    dialler.write(sent)
    listener.receive_ciphertext(ciphertext_of(dialler))
    received = b""
    while piece := listener.read(1000):
        assert len(piece) <= 1000
        received += piece
    assert received == sent


def test_ciphertext_in_any_pieces(pair) -> None:
    dialler, listener = pair
    sent = os.urandom(100_000)
    dialler.write(sent)
    ciphertext = ciphertext_of(dialler)
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


@pytest.mark.parametrize("kept", [1, 2, 5])
def test_what_is_kept_stays_as_it_is(pair, kept: int) -> None:
    """Views of what was read, or of what is to be sent, are kept while more comes: also small parts of them."""
    dialler, listener = pair
    sent = [os.urandom(200_000) for _ in range(kept + 3)]
    to_send = []
    for data in sent:
        dialler.write(data)
        while piece := dialler.ciphertext_to_send():
            to_send.append(memoryview(piece)[:])
    received = []
    for data in sent:
        arrived = 0
        while arrived < len(data):
            listener.receive_ciphertext(to_send.pop(0))
            while plain := listener.read():
                received.append(memoryview(plain)[1000:2000] if len(plain) > 2000 else memoryview(plain))
                arrived += len(plain)
        del received[:-kept]
        everything = b"".join(sent)
        assert all(bytes(view) in everything for view in received)


def as_array(view: memoryview) -> object:
    return np.frombuffer(view, "u2")[5:100].reshape(5, 19)


def unpickled(view: memoryview) -> object:
    """What a rank makes of the buffers that came beside a pickle."""
    buffers: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(np.zeros(100, "u1"), 5, buffer_callback=buffers.append)
    return pickle.loads(stream, buffers=[view[7:107]])


def cut(view: memoryview) -> object:
    return view.cast("B")[100:200].cast("H")[::2]


@pytest.mark.parametrize("keep", [as_array, unpickled, cut])
def test_what_is_made_of_a_view_stays_as_it_is(keep: Callable[[memoryview], object]) -> None:
    """When it ends, in whatever thread, the buffer is used again."""
    dialler, listener = _connected()

    def arrived() -> bytes | memoryview:
        dialler.write(os.urandom(200_000))
        listener.receive_ciphertext(ciphertext_of(dialler))
        return listener.read()

    kept = [keep(arrived())]
    before = memoryview(kept[0]).tobytes()
    another = arrived()
    assert isinstance(arrived(), bytes)  # there are two buffers, and both are lent
    assert memoryview(kept[0]).tobytes() == before
    thread = threading.Thread(target=kept.clear)
    thread.start()
    thread.join()
    assert isinstance(arrived(), memoryview)
    del another


def test_who_keeps_what_arrived_does_not_make_others_copy_for_ever() -> None:
    dialler, listener = _connected()
    kept, as_sent, kinds = [], [], []
    for _ in range(200):
        data = os.urandom(100_000)
        dialler.write(data)
        ciphertext = dialler.ciphertext_to_send()
        assert isinstance(ciphertext, memoryview)  # what is sent has buffers of its own
        listener.receive_ciphertext(ciphertext)
        del ciphertext
        plaintext = listener.read()
        kinds.append(type(plaintext))
        if len(kept) < 3 and isinstance(plaintext, memoryview):
            kept.append(plaintext)
            as_sent.append(data)
        del plaintext
    assert kept == as_sent
    lent = [kind is memoryview for kind in kinds]
    assert lent[:2] == [True, True]
    assert lent[2:65] == [False] * 63  # two buffers are kept: nothing more is given to those who keep
    assert lent[66:129] == [False] * 63
    assert all(lent[130:])


@pytest.mark.parametrize("end", ["goodbye", "spoilt"])
def test_nothing_keeps_what_came_before_the_end(end: str) -> None:
    dialler, listener = _connected()
    dialler.write(os.urandom(200_000))
    if end == "goodbye":
        dialler.close()
        ciphertext = ciphertext_of(dialler)
    else:
        ciphertext = ciphertext_of(dialler)
        dialler.write(b"more")
        ciphertext += ciphertext_of(dialler)[:-1] + b"?"
    listener.receive_ciphertext(ciphertext)
    gc.disable()
    try:
        data = weakref.ref(listener.read())
        assert data() is None
        with pytest.raises((TlsClosed, TlsError)):
            listener.read()
    finally:
        gc.enable()


def test_bulk_is_lent_and_messages_are_copied() -> None:
    dialler, listener = _connected()
    for size, kind in ((200_000, memoryview), (200_000, memoryview), (1_000, bytes)):
        dialler.write(os.urandom(size))
        ciphertext = dialler.ciphertext_to_send()
        listener.receive_ciphertext(ciphertext)
        plaintext = listener.read()
        assert isinstance(plaintext, kind)
        assert isinstance(ciphertext, kind)
        assert memoryview(plaintext).readonly
        del ciphertext, plaintext  # else the next ones are copied: there are two buffers


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

"""Texts that fit into a message: cut in the middle, and always UTF-8."""

from __future__ import annotations

from ipmpi import limits


def shorten(text: str, limit: int = limits.RESULT_TEXT) -> str:
    """``text`` that fits in ``limit`` bytes of UTF-8: the middle of a longer one becomes a note."""
    if len(text) * 4 <= limit:
        return sendable(text)
    data = sendable(text).encode()
    if len(data) <= limit:
        return data.decode()
    half = limit // 2
    # "ignore": the cut may go through a character
    head, tail = data[:half].decode(errors="ignore"), data[-half:].decode(errors="ignore")
    return f"{head}\n... [ipmpi: {len(data) - 2 * half:,} characters left out here] ...\n{tail}"


def sendable(text: str) -> str:
    """``text`` with lone surrogates, which cannot be sent as UTF-8, written as escapes."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace").decode()
    return text


def share(texts: list[str], limit: int) -> list[str]:
    """The same texts, cut so that all together fit in ``limit`` bytes: the short stay, the longest are cut."""
    sizes = [len(text.encode()) for text in texts]
    if sum(sizes) <= limit:
        return texts
    result, left = list(texts), limit
    order = sorted(range(len(texts)), key=sizes.__getitem__)
    for position, index in enumerate(order):
        part = left // (len(order) - position)
        if sizes[index] > part:
            result[index] = shorten(texts[index], max(part - _NOTE, 0))
        left -= min(sizes[index], part)
    return result


_NOTE = 80
"""Bytes that the note takes at most."""

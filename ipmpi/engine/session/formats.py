"""The formats in which a value can be shown: its ``_repr_*_`` methods, by IPython's rules and without IPython.

An object that has ``_repr_html_``, ``_repr_png_`` and the like tells what it looks like in a notebook. A method
that returns None has nothing to show; one that returns two values gives metadata with it. A method that raises is
left out, and what it raised is told on ``sys.stderr``.
"""

from __future__ import annotations

import binascii
import io
import re
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from ipmpi import limits
from ipmpi.engine.session.texts import sendable, shorten
from ipmpi.protocol.operations import Display
from ipmpi.protocol.output import METADATA

PLAIN: Final = "text/plain"
PNG: Final = "image/png"

_METHODS: Final = {
    "text/html": "_repr_html_",
    "text/markdown": "_repr_markdown_",
    "text/latex": "_repr_latex_",
    "image/svg+xml": "_repr_svg_",
    PNG: "_repr_png_",
    "image/jpeg": "_repr_jpeg_",
    "application/pdf": "_repr_pdf_",
    "application/javascript": "_repr_javascript_",
    "application/json": "_repr_json_",
}
_BUNDLE: Final = "_repr_mimebundle_"
_CANARY: Final = "_ipython_canary_method_should_not_exist_"
"""Who has this method makes up any that it is asked for (mocks, proxies), so that none of them means anything."""

_PLAIN_TYPES: Final = frozenset(
    {int, float, complex, bool, str, bytes, bytearray, list, tuple, dict, set, frozenset, type(None)}
)
_BINARY: Final = ("image/", "audio/", "video/", "application/pdf")
_TEXTUAL: Final = ("image/svg+xml",)
_LINE: Final = 79
_PRETTY: Final = 64 * limits.KIB
"""A longer representation is not laid out by pprint, which takes minutes for a large list."""

_ADDRESS: Final = re.compile(r"^<(.+) at 0x[0-9a-f]+>$")
_LOWEST_DPI: Final = 20.0


def laid_out(value: object) -> tuple[str, str]:
    """The repr of a value, in lines and as it is; raises what its ``__repr__`` raises."""
    text = repr(value)
    if not _LINE < len(text) <= _PRETTY:
        return text, text
    import pprint

    return pprint.pformat(value, width=_LINE, sort_dicts=False), text


def method_of(value: object, name: str) -> Callable[..., Any] | None:
    """A special method of IPython's that ``value`` has; None for classes, which have those of their instances."""
    if isinstance(value, type):
        return None
    try:
        if getattr(value, _CANARY, None) is not None:
            return None
        method = getattr(value, name, None)
    except Exception:  # its __getattr__ is user code
        return None
    return method if callable(method) else None


def formats_of(
    value: object,
    include: Collection[str] | None = None,
    exclude: Collection[str] | None = None,
    metadata: Mapping[str, object] | None = None,
) -> Display | None:
    """All formats of ``value`` but plain text, within ``limits.DISPLAY``; None if it has no other.

    Raises only what is no Exception: KeyboardInterrupt, SystemExit.

    Args:
        value: anything; a figure of matplotlib, too.
        include: only these MIME types.
        exclude: none of these.
        metadata: about formats, by MIME type, beside what the value itself says.
    """
    if type(value) in _PLAIN_TYPES:
        return None
    found: dict[str, object] = {}
    said: dict[str, object] = {}
    bundle = method_of(value, _BUNDLE)
    if bundle is not None:
        data, about = _parts(_called(value, _BUNDLE, bundle, include=include, exclude=exclude))
        if isinstance(data, Mapping):
            found.update(data)
            said.update(about if isinstance(about, Mapping) else {})
    for mime, name in _METHODS.items():
        method = None if mime in found or not _wanted(mime, include, exclude) else method_of(value, name)
        if method is not None:
            found[mime], about = _parts(_called(value, name, method))
            said.update({} if about is None else {mime: about})
    if PNG not in found and is_figure(value) and _wanted(PNG, include, exclude):
        found[PNG] = _called(value, "savefig", lambda: png_of(value))
    wanted = {mime: data for mime, data in found.items() if _wanted(mime, include, exclude)}
    return bundled(wanted, {**said, **(metadata or {})})


def bundled(data: Mapping[str, object], metadata: Mapping[str, object] | None = None) -> Display | None:
    """The display of a MIME bundle; None of an empty one. What is too large, or no data, is left out.

    Args:
        data: by MIME type: text, bytes (also in base64), or what JSON can express.
        metadata: about formats, by MIME type.
    """
    text: dict[str, str] = {}
    images: dict[str, bytes] = {}
    for mime, value in data.items():
        converted = _converted(str(mime), value)
        if isinstance(converted, bytes):
            images[str(mime)] = converted
        elif converted is not None:
            text[str(mime)] = sendable(converted)
    if metadata and (text or images):
        about = _converted("application/json", dict(metadata))
        text.update({METADATA: about} if isinstance(about, str) else {})
    return _within_limit(text, images) if text or images else None


def shown(value: object, display: Display | None) -> Display:
    """``display`` with the plain text of ``value``, which a terminal shows, unless it has its own."""
    own = {} if display is None else display.text
    has_text = display is not None and PLAIN in own and not is_incomplete(display)
    pretty = "" if has_text else shorten(laid_out(value)[0], _PLAIN_TEXT)
    if own or (display is not None and display.images):
        # Few see it, and what is equal on all ranks shall not differ by an address.
        pretty = _ADDRESS.sub(r"<\1>", pretty)
    text = {PLAIN: "\n".join(filter(None, (pretty, own.get(PLAIN))))}
    return Display({**own, **text}, {} if display is None else display.images)


def is_incomplete(display: Display) -> bool:
    """Whether the text is only a note that formats were left out."""
    return display.text.get(PLAIN, "").startswith(_NOTE)


def size(display: Display | None) -> int:
    """Bytes of all formats."""
    if display is None:
        return 0
    return sum(len(text.encode()) for text in display.text.values()) + sum(map(len, display.images.values()))


def png_of(figure: Any) -> bytes:
    """A figure of matplotlib as notebooks show it: with its own resolution, cut to what is drawn.

    If that is more than ``limits.DISPLAY`` bytes, the resolution is lowered until it is not. The figure counts as
    drawn (``figure.stale`` is False) until it is changed again.
    """
    dpi = float(figure.dpi)
    while True:
        file = io.BytesIO()
        figure.canvas.print_figure(
            file, format="png", dpi=dpi, bbox_inches="tight",
            facecolor=figure.get_facecolor(), edgecolor=figure.get_edgecolor(),
        )  # fmt: skip
        data = file.getvalue()
        if len(data) <= _IMAGES or dpi <= _LOWEST_DPI:
            figure.stale = False  # to cut it out has moved its parts, and moved them back
            return data
        dpi = max(dpi * 0.7, _LOWEST_DPI)


def is_figure(value: object) -> bool:
    """Whether it is a figure of matplotlib."""
    module = sys.modules.get("matplotlib.figure")
    return module is not None and isinstance(value, module.Figure)


def _wanted(mime: str, include: Collection[str] | None, exclude: Collection[str] | None) -> bool:
    return (not include or mime in include) and not (exclude and mime in exclude)


def _called(value: object, name: str, method: Callable[..., Any], **options: Any) -> Any:
    try:
        return method(**options)
    except NotImplementedError:
        return None
    except Exception as error:
        said = shorten(f"{type(error).__name__}: {error}", _PLAIN_TEXT)
        print(
            f"{type(value).__name__} is shown without what its {name}() gives, which raised {said}",
            file=sys.stderr,
        )
        return None


def _parts(result: object) -> tuple[object, object]:
    """Data, and metadata if there is any."""
    if isinstance(result, tuple) and len(result) == 2:
        return result
    return result, None


def _converted(mime: str, value: object) -> str | bytes | None:
    """What travels of a format; None if ``value`` is nothing that the format can have."""
    if value is None:
        return None
    if mime.startswith(_BINARY) and mime not in _TEXTUAL:
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        try:
            return binascii.a2b_base64(value) if isinstance(value, str) else None
        except (binascii.Error, ValueError):
            return None
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if not mime.endswith("json"):
        return None
    import json  # few values are shown so

    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return None


_NOTE: Final = "[ipmpi: "
_PLAIN_TEXT: Final = limits.RESULT_TEXT // 8
_IMAGES: Final = limits.DISPLAY - _PLAIN_TEXT - 16 * limits.KIB
"""What is left of one display beside its plain text."""


def _within_limit(text: dict[str, str], images: dict[str, bytes]) -> Display:
    """Without the largest formats, where all together are too large; then its text says what is missing."""
    plain = text.pop(PLAIN, None)
    sizes = {mime: len(each.encode()) for mime, each in text.items()} | {
        mime: len(d) for mime, d in images.items()
    }
    dropped = []
    while sum(sizes.values()) > _IMAGES:
        largest = max(sizes, key=sizes.__getitem__)
        dropped.append(f"{largest} has {sizes.pop(largest):,} bytes")
        text.pop(largest, None)
        images.pop(largest, None)
    if plain is not None:
        text[PLAIN] = shorten(plain, _PLAIN_TEXT)
    if dropped:
        note = f"{_NOTE}{' and '.join(dropped)}, too much to be shown (all formats of a display: {_IMAGES:,}). "
        note += "Show something smaller, or write it to a file]"
        text[PLAIN] = note if plain is None else f"{text[PLAIN]}\n{note}"
    return Display(text, images)

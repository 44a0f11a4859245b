"""What ranks display, where the user is: in a notebook, in a terminal that shows pictures, or as a file.

The formats come from ranks. In a notebook they are shown as if user code had displayed them there. In a terminal
their text is made harmless (:mod:`ipmpi.client.display.escapes`), and pictures go through as data.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from ...protocol.messages import METADATA
from .blocks import DISPLAY, Block
from .imageprotocols import Protocol, encoded, protocol_of, size_of_png
from .ranksets import RankSet
from .render import Renderer

Formats = Mapping[str, "str | bytes"]
Publish = Callable[[dict[str, Any], dict[str, Any]], object]
"""Shows a MIME bundle and its metadata in a notebook."""

PLAIN: Final = "text/plain"
_TERMINAL: Final = ("image/png", "image/jpeg")
_FILES: Final = {
    "image/png": ("figure", "png"),
    "image/jpeg": ("figure", "jpg"),
    "image/svg+xml": ("figure", "svg"),
    "image/gif": ("figure", "gif"),
    "application/pdf": ("figure", "pdf"),
}
"""What is written to a file where it cannot be shown, and what the file is called. HTML is not: it has a text."""

_TEXTS: Final = (PLAIN, "text/markdown", "text/latex")


class PictureFiles:
    """Writes pictures to files of one process, in a folder that only its user can enter.

    Args:
        parent: where the folder is made when the first picture comes; by default that for temporary files.
    """

    def __init__(self, parent: str | None = None) -> None:
        self._parent = parent
        self._folder: Path | None = None
        self._pid = 0
        self._numbers = itertools.count(1)

    def write(self, data: str | bytes, suffix: str) -> Path:
        """Write a new file; OSError if that is impossible."""
        if self._folder is None or self._pid != os.getpid() or not self._folder.is_dir():
            self._folder, self._pid = Path(tempfile.mkdtemp(prefix="ipmpi-", dir=self._parent)), os.getpid()
        path = self._folder / f"ipmpi-{next(self._numbers)}.{suffix}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(data.encode(errors="backslashreplace") if isinstance(data, str) else data)
        return path


FILES: Final = PictureFiles()
"""Those of this process."""


class Pictures:
    """Shows displays of ranks during one command. Not thread-safe.

    A picture is shown once: of ranks that display the same one later, only a line of text tells.

    Args:
        renderer: puts the ranks before a text.
        ranks: only displays of these engines are shown; None for all.
        protocol: of the terminal.
        publish: shows a bundle in a notebook; None if this is none.
        write: writes a text where the user reads, before something is published.
        files: for what cannot be shown.
    """

    def __init__(
        self,
        renderer: Renderer,
        *,
        ranks: Collection[int] | None = None,
        protocol: Protocol = "file",
        publish: Publish | None = None,
        write: Callable[[str], object] = lambda text: None,
        files: PictureFiles = FILES,
    ) -> None:
        self._renderer = renderer
        self._ranks = None if ranks is None else frozenset(ranks)
        self._protocol = protocol
        self._publish = publish
        self._write = write
        self._files = files
        self._seen: dict[bytes, set[int]] = {}
        """Pictures by what they are, and the engines that have displayed them."""

    @property
    def is_text(self) -> bool:
        """Whether all that is shown is text, without pictures in between."""
        return self._publish is None and self._protocol == "file"

    def live(self, block: Block) -> str | None:
        """Show a display while a command runs: for :class:`~ipmpi.client.display.live.LiveView`."""
        return self.show(block.engines, block.formats)

    def text(self, ids: Iterable[int], formats: Formats) -> str:
        """A display as text without its ranks, pictures as files: for ``Renderer.render``."""
        return self._as_text(formats) if self._chosen(ids) else ""

    def show(self, ids: Iterable[int], formats: Formats) -> str | None:
        """Show one display; returns the text that is still to be written, with its ranks, or None."""
        chosen = self._chosen(ids)
        if not chosen:
            return None
        before = self._displayed_before(chosen, formats)
        if before:
            return self._renderer.block(DISPLAY, chosen, f"the same as {before!r}")
        return self._shown(formats, lambda text: self._renderer.block(DISPLAY, chosen, text))

    def show_value(self, ids: Iterable[int], formats: Formats) -> str | None:
        """The same for the value of a command; ``formats`` has its plain text, too."""
        chosen = self._chosen(ids)
        if not chosen:
            return None
        return self._shown(formats, lambda text: self._renderer.value(chosen, text))

    def _chosen(self, ids: Iterable[int]) -> RankSet:
        return RankSet(each for each in ids if self._ranks is None or each in self._ranks)

    def _displayed_before(self, ids: RankSet, formats: Formats) -> RankSet:
        """The other ranks that have displayed the same picture, if these have not."""
        pictures = {mime: data for mime, data in formats.items() if isinstance(data, bytes)}
        if not pictures:
            return RankSet()
        content = repr(sorted(pictures.items())).encode()
        seen = self._seen.setdefault(hashlib.sha256(content).digest(), set())
        if not seen.isdisjoint(ids):
            seen.clear()  # the second time for these ranks
        before = RankSet(seen)
        seen.update(ids)
        return before

    def _shown(self, formats: Formats, labelled: Callable[[str], str]) -> str | None:
        if self._publish is not None and not set(formats) <= {PLAIN, METADATA}:
            bundle, metadata = notebook_bundle(formats)
            self._write(f"{labelled('').rstrip()}\n")
            self._publish(bundle, metadata)
            return None
        for mime in _TERMINAL if self._protocol != "file" else ():
            data = formats.get(mime)
            picture = encoded(mime, data, self._protocol) if isinstance(data, bytes) else None
            if picture is not None:
                return f"{labelled(_first_line(formats))}{picture}\n"
        return labelled(self._as_text(formats))

    def _as_text(self, formats: Formats) -> str:
        for mime, (noun, suffix) in _FILES.items():
            if mime in formats:
                return self._file(formats[mime], noun, suffix)
        for mime in _TEXTS:
            text = formats.get(mime)
            if isinstance(text, str):
                return text
        html = formats.get("text/html")
        if html is not None:
            return self._file(html, "page", "html")
        return f"<{', '.join(formats)}>"

    def _file(self, data: str | bytes, noun: str, suffix: str) -> str:
        try:
            path = self._files.write(data, suffix)
        except OSError as error:
            return f"{noun}: it could not be written to a file ({error})"
        size = size_of_png(data) if isinstance(data, bytes) else None
        return f"{noun}: {path}" + (f" ({size[0]}x{size[1]})" if size else "")


def _first_line(formats: Formats) -> str:
    text = formats.get(PLAIN, "figure")
    return text.partition("\n")[0] if isinstance(text, str) else "figure"


def notebook_bundle(formats: Formats) -> tuple[dict[str, Any], dict[str, Any]]:
    """A MIME bundle and its metadata, as Jupyter's messages have them: pictures in base64, JSON as objects."""
    bundle: dict[str, Any] = {}
    for mime, data in formats.items():
        if isinstance(data, bytes):
            bundle[mime] = base64.b64encode(data).decode()
        else:
            bundle[mime] = _parsed(data) if mime.endswith("json") else data
    metadata = bundle.pop(METADATA, None)
    return bundle, metadata if isinstance(metadata, dict) else {}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def publisher() -> Publish | None:
    """Shows bundles in the notebook that this process is the kernel of; None if it is none."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    publish = shell.display_pub.publish

    def show(bundle: dict[str, Any], metadata: dict[str, Any]) -> None:
        publish(data=bundle, metadata=metadata)

    return show


def pictures_here(renderer: Renderer, stream: Any = None, *, ranks: Collection[int] | None = None) -> Pictures:
    """Those for this process's notebook or terminal.

    Args:
        renderer: puts the ranks before a text.
        stream: where texts are written; by default ``sys.stdout``.
        ranks: only displays of these engines are shown; None for all.
    """
    out = sys.stdout if stream is None else stream
    publish = publisher() if stream is None else None

    def write(text: str) -> None:
        out.write(text)
        out.flush()

    is_terminal = publish is None and bool(getattr(out, "isatty", lambda: False)())
    protocol = protocol_of(os.environ) if is_terminal else "file"
    return Pictures(renderer, ranks=ranks, protocol=protocol, publish=publish, write=write)

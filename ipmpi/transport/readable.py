"""Whether any of some files can be read now: one system call, and no exception for each that cannot."""

from __future__ import annotations

import select
from collections.abc import Iterable


class Readable:
    """Asks about the same files again and again.

    Args:
        descriptors: of the files. Those that are closed later must not be asked about any more.
    """

    def __init__(self, descriptors: Iterable[int]) -> None:
        self._poll = select.poll()
        for descriptor in descriptors:
            self._poll.register(descriptor, select.POLLIN)

    def any(self) -> bool:
        """Whether one has data, or is at its end."""
        return bool(self._poll.poll(0))

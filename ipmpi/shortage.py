"""What a process has run out of, memory or open files: what to tell the user when a call has failed for that."""

from __future__ import annotations

import errno
import os
from typing import Final

FILES_FOR_ENGINES: Final = "start engines with a larger `ulimit -n`"
"""What helps an engine, or the agent of its node, with too many open files."""


def shortage(error: BaseException, place: str, said: str) -> str:
    """Return what to say of an error that is no bug, but means that this process has run out of something.

    Args:
        error: that was raised.
        place: where, with a space before it; may be empty.
        said: type and text of the error.

    Returns:
        A sentence; "" if the error means something else.
    """
    who = f"process {os.getpid()} on {os.uname().nodename}"
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        text = f"{who} has no memory left{place} ({said})"
        return f"{text}; see who takes it there, and what ulimit -v and the job allow"
    files = too_many_files(error, who, "start it with a larger `ulimit -n`")
    return files and f"a call{place} has failed: {files}"


def is_out_of_files(error: BaseException) -> bool:
    """Return whether an error means that this process, or its machine, may open no further file."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def too_many_files(error: BaseException, who: str, advice: str) -> str:
    """Return what to say of an error that means that no further file may be opened; "" if it means something else.

    Args:
        error: that was raised.
        who: the process, as in "the engine".
        advice: what to do about its limit.
    """
    if not isinstance(error, OSError) or not is_out_of_files(error):
        return ""
    if error.errno == errno.ENFILE:
        return (
            f"the machine of {who} has too many open files ({error}): close some there, or ask its administrators "
            "for more (sysctl fs.file-max)"
        )
    return f"{who} has too many open files ({error}): {advice}"

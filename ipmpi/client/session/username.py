"""The name of the user of this process."""

from __future__ import annotations

import getpass
import os


def user_name() -> str:
    """Return the user's name, or the number of one who has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return str(os.getuid())

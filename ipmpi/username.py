"""The name of this process's user."""

from __future__ import annotations

import os
import pwd


def user_name() -> str:
    """Return the name of this process's user; its number if it has no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except (KeyError, OSError):
        return str(os.geteuid())

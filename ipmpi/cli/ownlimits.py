"""Process limits of controllers and agents, which have links and secrets."""

from __future__ import annotations

import contextlib
import resource


def guard_secrets_and_allow_links() -> None:
    """Disable core files, which would contain the secrets, and raise the limit of open files to the maximum.

    Each link needs one, and each piece of a large reply; the usual soft limit of 1,024 is for programs that use
    select().
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

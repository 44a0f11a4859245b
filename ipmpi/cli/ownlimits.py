"""What a process of ours that has links and secrets asks of the system."""

from __future__ import annotations

import contextlib
import resource


def guard_secrets_and_allow_links() -> None:
    """No core file, which would hold the secrets; and as many open files as this process may have.

    Each link takes one, and each piece of a large answer; the usual soft limit of 1,024 is there for programs
    that use select().
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

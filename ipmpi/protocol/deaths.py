"""Lost ranks, and what is known of the end of each process."""

from __future__ import annotations

from ..ids import IdList
from .basemessage import Message


class Death(Message, frozen=True):
    """The end of one rank. What is not known is 0, None or empty; sizes are bytes.

    ``signal`` and ``exit_code`` are how the kernel says that it ended; ``abort`` is the code with which it called
    MPI_Abort; ``oom``: the kernel's out-of-memory killer chose it. ``peak_rss`` is the most memory that it was
    seen to have; ``memory`` that of all in its control group (or, without a limit there, on its machine), and
    ``limit`` how much those may have. ``ran`` is the command or task that it ran, for ``seconds``. ``printed`` are
    the last lines that it printed, ``stack`` is what faulthandler wrote about a crash.
    """

    rank: int
    pid: int
    host: str
    signal: int = 0
    exit_code: int | None = None
    abort: int | None = None
    oom: bool = False
    peak_rss: int = 0
    memory: int = 0
    limit: int = 0
    ran: str = ""
    seconds: float = 0.0
    printed: str = ""
    stack: str = ""


class RanksLost(Message, frozen=True, tag=61):
    """Ranks whose processes ended; ``ordered``: they were told to end, so nothing that they had is to blame.

    ``death`` is what is known of the end of a single one, beside the sentence.
    """

    ranks: IdList
    reason: str
    ordered: bool = False
    death: Death | None = None

"""What is to become of a set of engines that has lost one of them."""

from __future__ import annotations

from typing import Final, Literal

from .basemessage import Message

LossMode = Literal["shrink", "abort", "restart"]
"""What becomes of the others: they go on, if their launcher lets them; they end; or all are started again."""

LOSS_MODES: Final[tuple[LossMode, ...]] = ("shrink", "abort", "restart")


class OnLoss(Message, frozen=True, tag=31):
    """Choose what becomes of the launches of these engines when one is lost, or ask: ``mode`` is "" then.

    Answer: what is chosen for each of them, as a list of ``[id, mode]``. Refused (ClientError) for ``restart`` of
    engines that nobody would start again.
    """

    id: int
    targets: list[int] | None
    mode: str = ""


class RestoreAfterLoss(Message, frozen=True, tag=32):
    """What restores the names of these engines, for restarts that no client asks for. Answer: None."""

    id: int
    targets: list[int]
    operation: bytes


class EndSet(Message, frozen=True, tag=51):
    """End the whole set at once. With ``restart`` whoever has started it starts it again, else nobody does."""

    reason: str
    restart: bool

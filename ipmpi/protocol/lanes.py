"""What is said about bulk lanes: connections by which large bodies go from end to end.

A lane leads from a client to an engine set, through the controller, which joins two connections and passes on
what it cannot read. Its number is the controller's. The bytes of a stream may go by a lane; credit, refusals and
the end of a stream stay with the session, as PASSED stands there for the bytes (:mod:`ipmpi.protocol.frames`).
"""

from __future__ import annotations

from typing import Final

from .basemessage import Message

LANE_ROLE: Final = "lane"
"""The role of the handshake that is made on a lane."""
PREAMBLE: Final = b"\0ipmpi lane\n"
"""The first bytes of a connection for a lane; the ticket follows. No TLS record and no Hello begins with 0."""
TICKET_BYTES: Final = 32


class OfferLane(Message, frozen=True, tag=270):
    """The controller would like to make a lane to this engine set, which answers with :class:`LaneOffered`."""

    lane: int


class LaneOffered(Message, frozen=True, tag=271):
    """The set expects a client on this lane: it will show a certificate with this hash, and wants this secret."""

    lane: int
    fingerprint: bytes
    secret: bytes


class JoinLane(Message, frozen=True, tag=272):
    """Connect to the controller once more, and say the ticket, which is good once and for some seconds.

    To a client, with what the set has said in :class:`LaneOffered`.
    """

    lane: int
    ticket: bytes
    fingerprint: bytes = b""
    secret: bytes = b""


class LaneUp(Message, frozen=True, tag=273):
    """The handshake on a lane is done, and bodies may come by it."""

    lane: int


class UseLane(Message, frozen=True, tag=274):
    """What is left of this stream of the receiver's may go by the lane, as far as there is credit."""

    stream: int
    lane: int


class LaneCut(Message, frozen=True, tag=275):
    """The connection of a lane is over; so many of its numbered frames were received. Also to the other end.

    Then each end sends by :class:`LaneBytes` what the other has not received.
    """

    lane: int
    received: int


class LaneBytes(Message, frozen=True, tag=276):
    """The next bytes of a lane that was cut. Also to the other end."""

    lane: int
    sizes: list[int]


class LaneOver(Message, frozen=True, tag=277):
    """The lane could not be made; or, from the controller, it is to be forgotten."""

    lane: int


class LaneBody(Message, frozen=True, tag=278):
    """Only on a lane: the rest of a stream. ``body`` is the number that PASSED names it by."""

    body: int
    sizes: list[int]


LaneMessage = OfferLane | LaneOffered | JoinLane | LaneUp | UseLane | LaneCut | LaneBytes | LaneOver | LaneBody

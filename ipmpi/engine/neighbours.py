"""Where a rank stands in its set, and its links with other nodes (layer L4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .tree import Place, place

if TYPE_CHECKING:
    from .nodelinks import NodeLinks


class Neighbourhood(NamedTuple):
    """A rank's place in its set.

    Attributes:
        place: its neighbours.
        links: with those on other nodes; None where it has none.
        trouble: why nodes have no links with each other, or nothing. Each leader is a root then.
    """

    place: Place
    links: NodeLinks | None
    trouble: str


def meet(rank: int, leaders: Sequence[int], host: str, exchange: Callable[[object], list[Any]]) -> Neighbourhood:
    """Find this rank's place, and link leaders with each other. Collective; main thread, before user code.

    Args:
        rank: of this process in its set.
        leaders: the lowest rank on the node of each rank.
        host: the name of this node, for messages.
        exchange: gives every rank's value, by rank.
    """
    where = place(rank, leaders)
    if len(set(leaders)) == 1:
        return Neighbourhood(where, None, "")
    links = _make_links(len(where.remote)) if rank == leaders[rank] else None
    addresses = exchange("" if links is None else links.address)
    failure = ""
    if links is not None:
        above = "" if where.above is None else addresses[where.above]
        failure = links.connect(above)
    told = f"rank {rank} on {host}: {failure}" if failure else ""
    troubles = [text for text in exchange(told) if text]
    if not troubles:
        return Neighbourhood(where, links, "")
    if links is not None:
        links.close()
    # Whoever dialled knows more than whoever waited in vain, and the last leader in the tree has nobody below.
    return Neighbourhood(place(rank, leaders, one_tree=False), None, troubles[-1])


def _make_links(below: int) -> NodeLinks:
    # Only leaders of sets on several nodes need OpenSSL; a thousand others do not pay for importing it.
    from .nodelinks import NodeLinks

    return NodeLinks(below)

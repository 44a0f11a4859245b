"""What a client says about furls that are given out, and about engines that wait to be admitted."""

from __future__ import annotations

from ..ids import IdList
from .basemessage import Message


class GiveFurl(Message, frozen=True, tag=34):
    """Give out a furl. Answer: ``[its id, the furl]``.

    A client's ends after ``seconds``, and allows so many ``tasks`` and bytes (``size``) of arguments and
    functions, and only these ``engines``; None for no bound. One for engines is of the launch ``note``: ``places``
    is the number of its engines, ``seconds`` count from its first engine on, and ``local`` says that all are on
    the controller's machine. ``nodes`` are the machines that it runs on, None if they are not known; a launch
    that has its furl already runs on these from now on.
    """

    id: int
    role: str
    note: str = ""
    seconds: float | None = None
    tasks: int | None = None
    size: int | None = None
    engines: IdList | None = None
    places: int = 0
    local: bool = False
    nodes: list[str] | None = None


class ListFurls(Message, frozen=True, tag=35):
    """What there is to know of the furls that were given out. Answer: a list of dicts, without secrets."""

    id: int


class EndFurls(Message, frozen=True, tag=36):
    """Furls that were given out end now, with their sessions. Answer: the list of the ids that have ended.

    ``furls`` are ids, None for all that clients have; ``launch`` the name of a launch that is over, instead.
    """

    id: int
    furls: list[str] | None = None
    launch: str = ""


class ReplaceSecrets(Message, frozen=True, tag=37):
    """Make new secrets for the furl files. Answer: a list of ``[role, file]``.

    Sessions that were begun with the former ones go on, and end with ``now``: all but the sender's.
    """

    id: int
    now: bool = False


class AdmitSets(Message, frozen=True, tag=38):
    """Engine sets that wait to be admitted: ``what`` is 'list', 'admit' or 'refuse'; ``sets`` None for all.

    Answer: a list of dicts, of those that wait or have waited.
    """

    id: int
    what: str
    sets: list[int] | None = None


FurlMessage = GiveFurl | ListFurls | EndFurls | ReplaceSecrets | AdmitSets

"""Who may say what: the table that decides every message's legality (layer L1).

An authenticated link has a role. ``CONTROLLER_RECEIVES[role]`` is all that the controller listens to on a link
of that role, ``RECEIVES[role]`` all that the other end listens to. Nothing else decides: a message that is not
in its table ends the link it came on. So an engine's furl opens no client operation, a task furl none that
addresses given engines, and a monitor's furl changes nothing.

Inside an engine set a rank hears from above exactly what the set hears from the controller, and says to above
what the set says to the controller; only shared bodies are added.
"""

from __future__ import annotations

from typing import Final

from . import messages as m

Table = frozenset[type[m.Message]]

_LOOK: Final[Table] = frozenset({m.GetIds, m.ClusterInfo, m.Goodbye})
_ANSWERS: Final[Table] = frozenset({m.Reply, m.Refused, m.Notice, m.Goodbye})

CONTROLLER_RECEIVES: Final[dict[str, Table]] = {
    "engine": frozenset({m.Register, m.Result, m.RanksLost, m.Goodbye}),
    "mec": _LOOK | {m.Command, m.BodyAgain, m.QueueStatus, m.ClearQueue, m.Interrupt, m.Kill},
    "tc": _LOOK | {m.SubmitTask, m.BodyAgain, m.AbortTask, m.TaskStatus},
    "monitor": _LOOK | {m.QueueStatus, m.TaskStatus},
}

RECEIVES: Final[dict[str, Table]] = {
    "engine": frozenset({m.Registered, m.Dispatch, m.InterruptRanks, m.StopRanks, m.Goodbye}),
    "mec": _ANSWERS | {m.Accepted, m.Result, m.Undone, m.SendBodyAgain},
    "tc": _ANSWERS | {m.TaskDone, m.TaskUndone, m.SendBodyAgain},
    "monitor": _ANSWERS,
}

FROM_ABOVE: Final[Table] = RECEIVES["engine"] | {m.SharedBody}
FROM_BELOW: Final[Table] = CONTROLLER_RECEIVES["engine"]

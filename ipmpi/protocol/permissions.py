"""Who may say what: the table that decides every message's legality.

An authenticated link has a role. ``CONTROLLER_RECEIVES[role]`` is all that the controller listens to on a link
of that role, ``RECEIVES[role]`` all that the other end listens to. Nothing else decides: a message that is not
in its table ends the link it came on. So an engine's furl opens no client operation, a task furl none that
addresses given engines, and a monitor's furl changes nothing.

Inside an engine set a rank hears from above exactly what the set hears from the controller, and says to above
what the set says to the controller. Only shared bodies, what is said of tasks that ranks run together, that the
end is near, and at which step a program stops are added.

Inside an ssh session, the login node hears requests and what ends them, the laptop what becomes of them.
"""

from __future__ import annotations

from typing import Final

from . import messages as m

Table = frozenset[type[m.Message]]

_LOOK: Final[Table] = frozenset({m.GetIds, m.ClusterInfo, m.Goodbye})
_ANSWERS: Final[Table] = frozenset({m.Reply, m.Refused, m.Notice, m.EnginesChanged, m.Goodbye})
_SET_ON_TASKS: Final[Table] = frozenset(
    (
        m.WantTasks,
        m.TasksStarted,
        m.TaskResults,
        m.LargeTaskResult,
        m.TasksReturned,
        m.WantTaskBody,
        m.PropertiesChanged,
        m.TaskHolds,
        m.TasksHeld,
    )
)
_TASKS_TO_SET: Final[Table] = frozenset(
    (
        m.DefineFunction,
        m.ForgetFunctions,
        m.GiveTasks,
        m.TakeBackTasks,
        m.CancelTasks,
        m.TaskBody,
        m.ReserveRanks,
        m.ResultsRecorded,
    )
)

_CHANNEL: Final[Table] = frozenset({m.DebugBytes, m.DebugCredit, m.DebugClosed})
"""Bytes between an editor and debugpy, in both directions."""

LANE_ENDS: Final[Table] = frozenset({m.LaneUp, m.LaneCut, m.LaneBytes, m.LaneOver})
"""What both ends of a bulk lane say to the controller."""
_TOLANE_ENDS: Final[Table] = frozenset({m.JoinLane, m.UseLane, m.LaneCut, m.LaneBytes, m.LaneOver})
LANE: Final[Table] = frozenset({m.LaneBody, m.Goodbye})
"""What the two ends of a lane say to each other."""

FURLS: Final[Table] = frozenset({m.GiveFurl, m.ListFurls, m.EndFurls, m.ReplaceSecrets, m.AdmitSets})
"""Who may say these decides who comes in: only the role that may do everything, and no interface of a site."""

CONTROLLER_RECEIVES: Final[dict[str, Table]] = {
    "engine": _SET_ON_TASKS
    | _CHANNEL
    | LANE_ENDS
    | {
        m.LaneOffered,
        m.DebugOpened,
        m.Register,
        m.Findings,
        m.Output,
        m.DebuggerSaid,
        m.Watched,
        m.Result,
        m.CommandsHeld,
        m.RanksLost,
        m.JobEnds,
        m.RunBeforeEnd,
        m.AnswerStuck,
        m.Goodbye,
    },
    "mec": _LOOK
    | _CHANNEL
    | LANE_ENDS
    | FURLS
    | {
        m.DebugOpen,
        m.Command,
        m.CommandAgain,
        m.CommandsTold,
        m.CommandOrigin,
        m.CommandHistory,
        m.FollowCommand,
        m.BodyAgain,
        m.QueueStatus,
        m.ClearQueue,
        m.Interrupt,
        m.AskAgents,
        m.DebuggerLine,
        m.Kill,
        m.Restart,
        m.OnLoss,
        m.RestoreAfterLoss,
        m.Reserve,
        m.Release,
        m.Subscribe,
        m.Unsubscribe,
    },
    "tc": _LOOK
    | LANE_ENDS
    | {
        m.SubmitTasks,
        m.BodyAgain,
        m.AbortTasks,
        m.TaskStatus,
        m.DefineFunction,
        m.ForgetFunctions,
        m.Recheck,
        m.TasksFetched,
        m.TasksOpen,
        m.TaskOrigin,
        m.TaskHistory,
        m.ResumeTasks,
        m.FollowTasks,
        m.ForgetTasks,
    },
    "monitor": _LOOK | {m.QueueStatus, m.TaskStatus, m.WatchPublished, m.Unsubscribe},
}

RECEIVES: Final[dict[str, Table]] = {
    "engine": _TASKS_TO_SET
    | _CHANNEL
    | _TOLANE_ENDS
    | {
        m.OfferLane,
        m.DebugOpen,
        m.Registered,
        m.Dispatch,
        m.CommandWithdrawn,
        m.InterruptRanks,
        m.Inquiry,
        m.DebuggerLine,
        m.StopRanks,
        m.Unwatch,
        m.BeginWatch,
        m.EndSet,
        m.Goodbye,
    },
    "mec": _ANSWERS
    | _CHANNEL
    | _TOLANE_ENDS
    | {m.Accepted, m.Output, m.DebuggerSaid, m.DebugOpened, m.Watched, m.Result, m.Undone, m.SendBodyAgain},
    "tc": _ANSWERS | _TOLANE_ENDS | {m.TasksDone, m.TaskDone, m.TasksUndone, m.TasksAccepted, m.SendBodyAgain},
    "monitor": _ANSWERS | {m.Watched},
}

_OF_ROOTS: Final[Table] = _TOLANE_ENDS | LANE_ENDS | {m.OfferLane, m.LaneOffered}
"""What is said between a controller and a root agent only."""

FROM_ABOVE: Final[Table] = (RECEIVES["engine"] - _OF_ROOTS) | {
    *(m.LeaveCommand, m.RunTogether, m.LeaveTogether, m.DeliverTogether),
    *(m.HoldRanks, m.StopAt, m.GoOn),
}
FROM_BELOW: Final[Table] = (CONTROLLER_RECEIVES["engine"] - _OF_ROOTS) | {
    *(m.TogetherEnded, m.EndIsNear),
    *(m.CanStopAt, m.AllHold, m.CannotHold),
}

LOGIN_NODE_RECEIVES: Final[Table] = frozenset({m.ConnectTo, m.RunCommand, m.ReadFurl, m.ChannelReset, m.Goodbye})
LAPTOP_RECEIVES: Final[Table] = frozenset({m.Opened, m.Ended, m.ChannelReset, m.Goodbye})

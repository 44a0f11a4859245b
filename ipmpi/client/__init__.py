"""The clients, with the names of ``IPython.kernel``: ``client.MultiEngineClient``, ``client.TaskClient``, ..."""

from __future__ import annotations

from ..errors import CompositeError
from ..reference import Reference
from ..transport.ssh.ssh import SshSession
from .display.liveplot import LivePlot
from .display.whereabouts import Whereabouts
from .engines.arraystats import ArrayStats
from .engines.distributed import DistributedArray
from .engines.monitor import Monitor
from .engines.multiengine import MultiEngineClient
from .engines.pastcommands import PastCommand, PastCommands
from .engines.profile import Profile
from .engines.programmonitor import ProgramMonitor
from .engines.simulation import Simulation
from .engines.views import EngineView
from .session.results import PendingResult, ResultList
from .tasks.futures import TaskFuture, as_completed, wait
from .tasks.mapresults import MapResults
from .tasks.resuming import NamedTasks
from .tasks.task import TaskClient
from .tasks.tasktypes import MapTask, StringTask

__all__ = [
    "ArrayStats",
    "CompositeError",
    "DistributedArray",
    "EngineView",
    "LivePlot",
    "MapResults",
    "MapTask",
    "Monitor",
    "MultiEngineClient",
    "NamedTasks",
    "PastCommand",
    "PastCommands",
    "PendingResult",
    "Profile",
    "ProgramMonitor",
    "Reference",
    "ResultList",
    "Simulation",
    "SshSession",
    "StringTask",
    "TaskClient",
    "TaskFuture",
    "Whereabouts",
    "as_completed",
    "wait",
]

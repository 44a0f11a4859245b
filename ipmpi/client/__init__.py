"""The clients, by the original's names: ``from ipmpi import client`` and ``client.MultiEngineClient()``."""

from __future__ import annotations

from ..errors import CompositeError
from .futures import TaskFuture, as_completed, wait
from .mapresults import MapResults
from .multiengine import MultiEngineClient
from .results import PendingResult, ResultList
from .task import TaskClient
from .tasktypes import MapTask, StringTask
from .views import EngineView

__all__ = [
    "CompositeError",
    "EngineView",
    "MapResults",
    "MapTask",
    "MultiEngineClient",
    "PendingResult",
    "ResultList",
    "StringTask",
    "TaskClient",
    "TaskFuture",
    "as_completed",
    "wait",
]

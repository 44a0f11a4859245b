"""The result of a StringTask: values by name, times, and the failure if there is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from ...errors import text_of
from ..session.calltimes import CallTimes
from .metadata import metadata

TIME_FORMAT = "%Y/%m/%d %H:%M:%S"


class TaskFailure:
    """The exception of a failed task, which is raised on request.

    Attributes:
        type: the class of the exception.
        value: the exception itself, with the engine's traceback in ``_ipython_traceback_text``.
    """

    def __init__(self, value: BaseException) -> None:
        self.type = type(value)
        self.value = value

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.type!r}>"

    def __str__(self) -> str:
        return f"{self.type.__name__}: {text_of(self.value)}"

    def raise_exception(self) -> NoReturn:
        """Raise the exception."""
        raise self.value

    raiseException = raise_exception

    def get_traceback(self) -> str:
        """Return the engine's formatted traceback, or the exception in one line if there is none."""
        return str(getattr(self.value, "_ipython_traceback_text", None) or self)


class ResultNS:
    """The results of a task as attributes, ``tr.ns.a``, or items, ``tr.ns['a']``; read-only."""

    __slots__ = ("_values",)
    _values: dict[str, Any]

    def __init__(self, values: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_values", dict(values))

    def __getattr__(self, name: str) -> Any:
        if name == "_values":  # copy and pickle ask before it is set
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"the task has no result {name!r}; it pulled: {', '.join(self._values) or 'nothing'}"
            ) from None

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("the results of a task cannot be changed")

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __dir__(self) -> list[str]:
        return sorted(self._values)

    def __repr__(self) -> str:
        return f"NS{self._values!r}"


class TaskResult:
    """The result of a :class:`~ipmpi.client.tasks.tasktypes.StringTask`, successful or failed.

    ``tr['a']`` and ``tr.ns.a`` are the pulled value; both raise the exception of a failed task.

    Attributes:
        taskid: the id that :meth:`TaskClient.run` returned.
        engineid: the id of the engine that ran it last; -1 if none did.
        results: dict of the pulled names and values; empty if the task failed.
        keys: list of the pulled names.
        failure: a :class:`TaskFailure`; None if the task succeeded.
        submitted: when it was submitted, in local time, a str such as ``'2008/03/08 03:41:42'``.
        completed: when the result arrived, in the same format.
        duration: seconds from submission to completion, a float.
    """

    def __init__(
        self,
        taskid: int,
        engineid: int,
        results: Mapping[str, Any],
        failure: BaseException | None,
        times: CallTimes,
    ) -> None:
        self.taskid = taskid
        self.engineid = engineid
        self.failure = None if failure is None else TaskFailure(failure)
        self.results = dict(results)
        self.keys = list(self.results)
        self._times = times
        self.submitted = times.started.strftime(TIME_FORMAT)
        self.completed = "" if times.completed is None else times.completed.strftime(TIME_FORMAT)
        self.duration = times.elapsed
        self._ns = ResultNS(self.results)

    def __repr__(self) -> str:
        return f"TaskResult[ID:{self.taskid}]:{self.results if self.failure is None else self.failure!r}"

    def __getitem__(self, key: str) -> Any:
        self.raise_exception()
        return self.results[key]

    @property
    def elapsed(self) -> float:
        """Seconds from submission to completion; the same as :attr:`duration`."""
        return self.duration

    wall_time = elapsed

    @property
    def metadata(self) -> dict[str, Any]:
        """What is known of the task, as :attr:`TaskFuture.metadata`."""
        engine = None if self.engineid < 0 else self.engineid
        return metadata(self._times, engine, "ok" if self.failure is None else "error")

    @property
    def ns(self) -> ResultNS:
        """The results as attributes; raises the exception of a failed task."""
        self.raise_exception()
        return self._ns

    @ns.setter
    def ns(self, value: object) -> NoReturn:  # noqa: ARG002
        raise Exception("the ns attribute cannot be changed")

    def raise_exception(self) -> None:
        """Raise the exception of the task; do nothing if it succeeded."""
        if self.failure is not None:
            self.failure.raise_exception()

"""The task farm with the interfaces of other libraries: executors, process pools, joblib."""

from __future__ import annotations

from .executor import Executor
from .joblib_backend import register_joblib
from .pool import Pool

__all__ = ["Executor", "Pool", "register_joblib"]

"""Steer a program that has a loop of its own: a session on a laptop can change and watch it while it runs.

::

    from ipmpi import steering

    with steering.attach(dt=1e-3, nu=0.1) as s:
        for step in s.loop(10_000):
            advance(T, s.dt, s.nu)
            s.publish(T=T)

Without a controller nothing changes: the program runs as ever, and can be steered as soon as there is one.
"""

from __future__ import annotations

from ..record import Record as Record
from .attaching import attach as attach
from .program import Steering as Steering

__all__ = ["Record", "Steering", "attach"]

"""Programs that are steered, and which of them is meant."""

from __future__ import annotations

import time
from typing import Any, Final, Protocol

from ...errors import ClientError

_LOOK: Final = 0.25
"""Seconds between two looks whether a program has come."""


class Informed(Protocol):
    """The part of a client that this module uses."""

    def cluster_info(self) -> dict[str, Any]:
        """Return what is registered."""


def find(client: Informed, program: str, deadline: float) -> tuple[str, list[int]]:
    """Return the name of the program, and the ids of its ranks; wait for it until ``deadline``."""
    while not (found := attached(client, program)) and time.monotonic() < deadline:
        time.sleep(_LOOK)
    if not found:
        called = f" called {program!r}" if program else ""
        raise ClientError(
            f"no program{called} is attached to this controller. A program calls ipmpi.steering.attach(), is "
            "started as usual (mpirun -n 4 python app.py), and finds the controller by the same file as ipengine"
        )
    if len(found) > 1:
        names = sorted({name for _, name in found})
        several = f"{len(found)} programs are attached to this controller ({', '.join(names)})"
        if len(names) == 1:
            raise ClientError(
                f"{several}, under one name: tell them apart in the program, as by attach(program='left') and "
                "attach(program='right')"
            )
        raise ClientError(f"{several}: choose one, as in simulation(program={names[0]!r})")
    ((_, name), ids), *_ = found.items()
    return name, ids


def attached(client: Informed, program: str) -> dict[tuple[int, str], list[int]]:
    """Return the ids of ranks, by the key of their set and the name of their program."""
    found: dict[tuple[int, str], list[int]] = {}
    for engine in client.cluster_info()["engines"]:
        title = engine.get("program", "")
        if title and program in ("", title):
            found.setdefault((engine["set"], title), []).append(engine["id"])
    return found

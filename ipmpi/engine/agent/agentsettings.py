"""The settings of a node agent."""

from __future__ import annotations

from typing import NamedTuple


class AgentSettings(NamedTuple):
    """How to reach the controller, as given to ``ipengine``.

    Attributes:
        furl_file: its furl file, or the furl; "" for the default.
        name: the name of the cluster.
        proxy: the proxy to use; None for that of the environment.
        wait: seconds to wait for it to appear.
        shown: the furl file, for messages.
        ids_dir: folder for the ids of the set, for its replacement; "" for none.
        on_loss: what becomes of the set when one of its ranks is lost.
    """

    furl_file: str
    name: str
    proxy: str | None
    wait: float
    shown: str
    ids_dir: str = ""
    on_loss: str = "shrink"

"""Where the files of a user's clusters are, and what clusters may be called.

Apart from :mod:`ipmpi.furl`, which has the furls in these files, as each rank asks where to log.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from .errors import FurlError

FILES: Final[Mapping[str, str]] = {
    "engine": "ipcontroller-engine.furl",
    "mec": "ipcontroller-mec.furl",
    "tc": "ipcontroller-tc.furl",
    "monitor": "ipcontroller-monitor.furl",
}
"""Role -> name of its furl file in the ``security`` folder."""

CLUSTER_NAME: Final = re.compile(r"(?!ipcontroller-)[A-Za-z0-9][A-Za-z0-9_.-]{0,63}(\+[0-9]{1,4})?", re.ASCII)
"""The name of a cluster, which is also that of its folders. With ``+`` and a number those engines of it are meant
that were added as the second, third and so on."""
NAME_RULE: Final = (
    "take up to 64 letters, digits, '-', '_' and '.', with a letter or digit first, and not 'ipcontroller-'"
)


def ipython_dir(environ: Mapping[str, str] | None = None, home: Path | None = None) -> Path:
    """``$IPYTHONDIR``, or ``~/.ipython``."""
    home = Path.home() if home is None else home
    chosen = (os.environ if environ is None else environ).get("IPYTHONDIR", "")
    if chosen == "~" or chosen.startswith("~/"):
        return home / chosen[2:]
    return Path(chosen) if chosen else home / ".ipython"


def security_dir(environ: Mapping[str, str] | None = None, home: Path | None = None) -> Path:
    """The folder of furl files and the controller's certificate."""
    return ipython_dir(environ, home) / "security"


def default_furl_file(role: str, environ: Mapping[str, str] | None = None, home: Path | None = None) -> Path:
    """The file with the furl of ``role`` for those who name no cluster: of the newest cluster without a name."""
    return security_dir(environ, home) / FILES.get(role, f"ipcontroller-{role}.furl")


def cluster_furl_file(role: str, name: str) -> Path:
    """The file where the controller of a cluster puts the furl of ``role``.

    Raises:
        FurlError: no cluster can have this name.
    """
    if CLUSTER_NAME.fullmatch(name) is None:
        raise FurlError(f"{name[:80]!r} cannot be the name of a cluster: `ipcluster list` shows those that run")
    return security_dir() / name / default_furl_file(role).name

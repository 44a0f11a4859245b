"""``ipcluster kernel``: tells Jupyter about kernels whose cells run on all ranks of a cluster."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ipmpi.cli import argtypes
from ipmpi.cli.remote import destination
from ipmpi.errors import LauncherError

_PREFIX: Final = "ipmpi"
_FORBIDDEN: Final = re.compile(r"[^a-z0-9._-]+")
"""Characters that Jupyter does not take in the name of a kernel."""


def main(words: Sequence[str]) -> int:
    """Run it; returns the exit code."""
    parsed = parser().parse_args(words)
    if parsed.action == "list":
        return _list()
    if parsed.action == "remove":
        return _remove(parsed.name)
    return _install(parsed)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argtypes.Parser(
        prog="ipcluster kernel",
        description="Add a kernel to JupyterLab and VS Code whose cells run on all ranks of a cluster, remove it, "
        "or list those that there are. The cluster need not run yet.",
    )
    p.add_argument("action", choices=("install", "remove", "list"), help="what to do")
    p.add_cluster_name(
        "of the cluster (default: whichever unnamed cluster was started last when a notebook is opened)"
    )
    p.add_argument(
        "--display-name", type=argtypes.line, default="", metavar="TEXT",
        help='what Jupyter shows (default: "ipmpi: NAME")',
    )  # fmt: skip
    p.add_argument(
        "--ssh", type=destination, default="", metavar="USER@HOST",
        help="the login node of the cluster; ssh must log in there without a password",
    )  # fmt: skip
    p.add_argument(
        "--prefix", type=argtypes.path_name, default="", metavar="DIR",
        help="install into DIR/share/jupyter/kernels, DIR may be a virtual environment (default: for you alone)",
    )  # fmt: skip
    return p


def kernel_name(cluster: str) -> str:
    """What Jupyter calls the kernel of a cluster."""
    made = _FORBIDDEN.sub("-", cluster.lower()).strip("-")
    return f"{_PREFIX}-{made}" if made else _PREFIX


def kernel_spec(cluster: str, display_name: str = "", ssh: str = "") -> dict[str, Any]:
    """What kernel.json says: this Python starts the kernel, and finds the cluster where this process would."""
    words = [sys.executable, "-m", "ipmpi.ipython.kernel", "-f", "{connection_file}"]
    words += ["--cluster", cluster] if cluster else []
    words += ["--ssh", ssh] if ssh else []
    folder = os.environ.get("IPYTHONDIR")
    return {
        "argv": words,
        "display_name": display_name or (f"ipmpi: {cluster}" if cluster else "ipmpi"),
        "language": "python",
        "interrupt_mode": "signal",
        "env": {"IPYTHONDIR": folder} if folder else {},
        "metadata": {"debugger": False},
    }


def _install(parsed: argparse.Namespace) -> int:
    manager = _manager()
    spec = kernel_spec(parsed.name, parsed.display_name, parsed.ssh)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "kernel.json").write_text(json.dumps(spec, indent=1), "utf-8")
        where = manager.install_kernel_spec(
            folder, kernel_name(parsed.name), user=not parsed.prefix, prefix=parsed.prefix or None
        )
    print(f"Jupyter has the kernel {spec['display_name']!r} now, from {where}.")
    print("To remove it: ipcluster kernel remove" + (f" {parsed.name}" if parsed.name else ""))
    return 0


def _remove(cluster: str) -> int:
    manager, name = _manager(), kernel_name(cluster)
    if name not in manager.find_kernel_specs():
        raise LauncherError(f"Jupyter has no kernel {name!r} that could be removed; see: ipcluster kernel list")
    print(f"removed {manager.remove_kernel_spec(name)}")
    return 0


def _list() -> int:
    found = {name: where for name, where in _manager().find_kernel_specs().items() if _is_ours(where)}
    if not found:
        print("Jupyter has no kernel of ipmpi. Add one with: ipcluster kernel install NAME")
    for name, where in sorted(found.items()):
        print(f"{name}  {where}")
    return 0


def _is_ours(folder: str) -> bool:
    try:
        words = json.loads((Path(folder) / "kernel.json").read_text("utf-8"))["argv"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return "ipmpi.ipython.kernel" in words


def _manager() -> Any:
    try:
        importlib.import_module("ipykernel")
        return importlib.import_module("jupyter_client.kernelspec").KernelSpecManager()
    except ImportError as error:
        raise LauncherError(
            f"a kernel needs ipykernel, which is not installed here ({error}): pip install 'ipmpi[notebook]'"
        ) from None

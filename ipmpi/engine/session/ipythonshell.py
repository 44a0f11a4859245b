"""IPython's shell on an engine. Importing this loads IPython."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import types
from typing import Any

from IPython.core import page
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config


def new_shell(names: dict[str, Any]) -> Any:
    """Return an InteractiveShell whose namespace is ``names``. It leaves no names there."""
    config = Config()
    config.HistoryManager.enabled = False  # many ranks would write one database
    config.InteractiveShell.colors = "nocolor"
    config.InteractiveShell.autocall = 0
    before = dict(names)
    # Not in the user's folder: ranks of all nodes would make files there at the same time.
    folder = tempfile.TemporaryDirectory(prefix="ipmpi-ipython-")
    shell: Any = InteractiveShell.instance(
        config=config, user_module=sys.modules[names["__name__"]], user_ns=names, ipython_dir=folder.name
    )
    shell._ipmpi_folder = folder  # removed with the shell
    for name in [name for name in names if name not in before]:
        del names[name]
    names.update(before)
    # A question is answered as text, not in a pager that waits for keys.
    pages: Any = page
    shell.set_hook("show_in_pager", pages.as_hook(page.display_page), 90)
    shell.system = types.MethodType(_system, shell)
    return shell


def _system(shell: Any, command: str) -> None:
    """Run a shell command; its output is shown line by line. An interrupt ends it."""
    child = subprocess.Popen(
        shell.var_expand(command, depth=1), shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="backslashreplace", start_new_session=True,
    )  # fmt: skip
    try:
        with child:
            for line in child.stdout or ():
                sys.stdout.write(line)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        raise
    shell.user_ns["_exit_code"] = child.returncode

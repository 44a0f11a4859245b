"""A Jupyter kernel whose cells run on all ranks of a cluster: a stock ipykernel in which ``%autopx`` is on.

``ipcluster kernel install`` tells Jupyter about it. The kernel connects when the first cell runs, and again when
the cluster has been started anew. Magics and shell commands run on the ranks, too; only ipmpi's own magics and
cell magics run in the kernel's process, where ``mec`` is the client.
"""

from __future__ import annotations

from typing import Any

from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp, kernel_aliases
from IPython.utils.tokenutil import token_at_cursor
from traitlets import Dict, Unicode

from .. import __version__
from ..client.engines.multiengine import MultiEngineClient
from ..client.session.connecting import connect
from ..client.session.session import Session
from ..errors import KernelError


class RanksKernel(IPythonKernel):
    """The kernel. Its cluster is named by the options of :class:`RanksKernelApp`."""

    implementation = "ipmpi"
    implementation_version = __version__
    banner = f"ipmpi {__version__}: cells run on all ranks of the cluster"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._session: Session | None = None
        self._is_auto = False

    async def do_execute(self, code: str, silent: bool, *arguments: Any, **options: Any) -> Any:
        """Connect if there is no connection, and run a cell."""
        if code.strip():
            try:
                self._connect()
            except (KernelError, ValueError, OSError) as error:
                return self._failed(error, silent)
        return await super().do_execute(code, silent, *arguments, **options)

    def do_inspect(self, code: str, cursor_pos: int, detail_level: int = 0, omit_sections: Any = ()) -> Any:
        """What a name is on the ranks, or else in this process."""
        name = token_at_cursor(code, cursor_pos)
        client = self.shell.user_ns.get("mec")
        told = None
        magics = self.shell.magics_manager.registry.get("ParallelMagics")
        if isinstance(client, MultiEngineClient) and magics is not None and magics.goes_to_engines(code):
            told = client.describe(name, source=detail_level > 0)
        if told is None:
            return super().do_inspect(code, cursor_pos, detail_level, omit_sections)
        return {"status": "ok", "found": True, "data": {"text/plain": told}, "metadata": {}}

    def _connect(self) -> None:
        if self._session is not None and self._session.failure is None:
            return
        app = self.parent
        self._session = connect(app.furl, "mec", name=app.cluster, ssh=app.ssh or None)
        client = MultiEngineClient(session=self._session)
        self.shell.user_ns["mec"] = client
        client.activate()
        if not self._is_auto:
            self._is_auto = True  # from now on it is the user who ends it
            self.shell.magics_manager.registry["ParallelMagics"].run_all_on_engines()

    def _failed(self, error: Exception, silent: bool) -> dict[str, Any]:
        told = {
            "ename": type(error).__name__,
            "evalue": str(error),
            "traceback": [f"{type(error).__name__}: {error}"],
        }
        if not silent:
            self.send_response(self.iopub_socket, "error", told)
        return {"status": "error", "execution_count": self.execution_count, **told}


class RanksKernelApp(IPKernelApp):
    """Starts the kernel: ``python -m ipmpi.ipython.kernel -f FILE --cluster NAME``."""

    name = "ipmpi-kernel"
    kernel_class = RanksKernel
    cluster = Unicode("", help="the name of a cluster, as ipcluster list shows it").tag(config=True)
    furl = Unicode("", help="a furl or its file, instead of a name").tag(config=True)
    ssh = Unicode("", help="the login node of the cluster, as user@login").tag(config=True)
    aliases = Dict({**kernel_aliases, **{each: f"RanksKernelApp.{each}" for each in ("cluster", "furl", "ssh")}})


if __name__ == "__main__":
    RanksKernelApp.launch_instance()

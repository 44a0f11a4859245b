"""Debugpy, attached to this process over a socket that exists: it listens nowhere, and connects to nowhere.

Debugpy's ``listen(..., in_process_debug_adapter=True)`` has pydevd speak the Debug Adapter Protocol itself, at a
port. This does the same with a given socket. It is done in the main thread, between two of its
instructions, so that the functions that run are traced, too.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
from pathlib import Path
from typing import Any, Final

_OWN: Final = str(Path(__file__).parents[2])
"""Functions of ipmpi are not stopped in, nor shown."""

_BOTH: Final = 2
"""SHUT_RDWR: only the room "transport" imports sockets."""

_NO_CHECK: Final = "PYDEVD_DISABLE_FILE_VALIDATION"
"""Keeps pydevd from printing that it cannot stop in Python's frozen modules; looked at when it is loaded."""


class EditorDebugger:
    """Pydevd, from here to :meth:`detach`. Everything in the main thread.

    Args:
        sock: a stream to an editor; it is closed at the end.

    Raises:
        ImportError: debugpy is not installed.
        RuntimeError: the user's own code uses debugpy.
    """

    def __init__(self, sock: Any) -> None:
        try:
            self._pydevd: Any = _loaded()
            if self._pydevd.get_global_debugger() is not None:
                raise RuntimeError("code of yours has started debugpy in this engine already; end that first")
        except BaseException:
            sock.close()
            raise
        self._sock = sock
        debugger_class = self._pydevd.PyDB
        connect = debugger_class.connect

        def connected(debugger: Any, _host: str, _port: int) -> None:
            # It is disposed of in the main thread only, and not by each thread that sees the end of the stream.
            debugger.initialize_network(_Stream(sock, debugger), terminate_on_socket_close=False)

        debugger_class.connect = connected
        try:
            self._pydevd.settrace(
                host="", port=0, suspend=False, wait_for_ready_to_run=False, block_until_connected=True,
                patch_multiprocessing=False, notify_stdin=False, protocol="dap",
                dont_trace_start_patterns=(_OWN, _folder_of("debugpy")),
            )  # fmt: skip
        except BaseException:
            sock.close()
            raise
        finally:
            debugger_class.connect = connect
        self._debugger = self._pydevd.get_global_debugger()
        self._terminate = _api().request_terminate_process
        _api().request_terminate_process = _not_terminated

    def detach(self) -> None:
        """Forget all breakpoints, let all threads go on, and trace nothing more."""
        _release(self._debugger)
        with contextlib.suppress(OSError):
            self._sock.shutdown(_BOTH)  # to close it would not end the thread that reads
        self._pydevd.stoptrace()
        if self._pydevd.get_global_debugger() is self._debugger:  # one of its threads has not ended in time
            self._pydevd.set_global_debugger(None)
        self._close()

    def abandon(self) -> None:
        """Let go of everything in a forked child, where no thread of the debugger is left."""
        self._pydevd.settrace_forked(setup_tracing=False)
        if self._pydevd.PYDEVD_USE_SYS_MONITORING:
            self._pydevd.pydevd_sys_monitoring.stop_monitoring(all_threads=True)
        else:
            sys.settrace(None)
            threading.settrace(None)
        self._close()

    def _close(self) -> None:
        _api().request_terminate_process = self._terminate
        self._sock.close()


class _Stream:
    """The socket as pydevd sees it. When the editor is gone, threads that it has stopped go on."""

    def __init__(self, sock: Any, debugger: Any) -> None:
        self._sock = sock
        self._debugger = debugger

    def recv(self, size: int) -> bytes:
        """Return the next bytes; none at the end."""
        data: bytes = b""
        with contextlib.suppress(OSError):
            data = self._sock.recv(size)
        if not data:
            _release(self._debugger)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def _release(debugger: Any) -> None:
    """Remove all breakpoints, and let threads that were stopped go on."""
    debugger.enable_output_redirection(False, False)
    _api()().request_disconnect(debugger, resume_threads=True)


def _loaded() -> Any:
    """Load debugpy and pydevd, which it contains."""
    had = os.environ.get(_NO_CHECK)
    os.environ[_NO_CHECK] = "1"
    try:
        importlib.import_module("debugpy.server.api")
        return importlib.import_module("pydevd")
    finally:
        if had is None:
            del os.environ[_NO_CHECK]
        else:
            os.environ[_NO_CHECK] = had


def _api() -> Any:
    return importlib.import_module("_pydevd_bundle.pydevd_api").PyDevdAPI


def _not_terminated(api: Any, debugger: Any) -> None:
    """An editor's "Stop" would end the process, and with it perhaps all ranks: it detaches."""
    api.request_disconnect(debugger, resume_threads=True)


def _folder_of(package: str) -> str:
    return str(Path(str(importlib.import_module(package).__file__)).parent)

"""``ipengine``: one engine, or with ``mpirun -n N ipengine`` a set of N behind one link (layer L5)."""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import logging
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__, gpus, limits, mpienv, walltime
from ..engine.namespace import Namespace
from ..engine.neighbours import meet
from ..engine.proxy import Proxy
from ..engine.rank import Rank
from ..engine.uplink import link_up
from ..engine.world import MODES, World, host_and_pid, start_world
from ..errors import FurlError, KernelError
from ..ownpath import add_current_folder
from ..protocol.messages import EngineInfo
from ..protocol.states import FROM_ABOVE, RECEIVES
from ..transport.loop import Loop
from ..transport.unix import UnixListener, connect_unix
from .logs import start_log

if TYPE_CHECKING:
    from ..engine.nodelinks import NodeLinks

log = logging.getLogger("ipengine")

_RETRY = 0.1
_RETRY_FACTOR = 1.3
_RETRY_LONGEST = 2.0
"""Seconds between tries while the controller is waited for: it may be there in a moment, or in minutes."""
_FINALIZE_TIMEOUT = 5.0
_PR_SET_PDEATHSIG = 1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="ipengine",
        description="Start an engine. Under mpirun, mpiexec or srun all ranks become one engine set: rank 0 "
        "connects to the controller, and the others through it.",
    )
    p.add_argument(
        "--furl-file", default="", metavar="FILE",
        help="the controller's furl file (default: ipcontroller-engine.furl in ~/.ipython/security)",
    )  # fmt: skip
    p.add_argument(
        "--mpi", default="auto", choices=MODES,
        help="auto: join the communicator if an MPI launcher started this; none: each engine by itself",
    )  # fmt: skip
    p.add_argument("--name", default="", metavar="NAME", help="the controller's name, instead of a furl file")
    p.add_argument(
        "-l", "--logfile", default="", metavar="PREFIX",
        help="log to PREFIX<host>-<rank>-<pid>.log only (default: to log/NAME/ipengine-<host>-<rank>-<pid>.log in "
        "$IPYTHONDIR or ~/.ipython, and to the terminal)",
    )  # fmt: skip
    p.add_argument(
        "--walltime", type=_walltime, default=None, metavar="TIME",
        help="this job ends so long after the engine has started: 90m, 1h30m, 1:30:00, 1-12:00:00 with days, or "
        "seconds (default: what the job script exports as IPMPI_JOB_END, or what Slurm or PBS say)",
    )  # fmt: skip
    p.add_argument(
        "--gpus", type=_gpus, default=None, metavar="N",
        help="a node has N GPUs: share them among its ranks, before MPI starts. A list like 3,2,1,0 says in which "
        "order ranks get them",
    )  # fmt: skip
    p.add_argument(
        "--wait", type=_wait, default=0.0, metavar="S", help="wait so long for the controller to appear"
    )
    p.add_argument(
        "--proxy", type=_proxy, default=None, metavar="URL",
        help="HTTP proxy to reach the controller through, as http://host:port; none: no proxy (default: that of "
        "https_proxy or all_proxy in the environment, where the direct way fails)",
    )  # fmt: skip
    p.add_argument("--version", action="version", version=f"ipmpi {__version__}")
    return p


def _proxy(text: str) -> str:
    if "@" in text:
        raise argparse.ArgumentTypeError(
            "a password does not belong into a command line, which everybody on this machine can read. Leave it "
            "out, write `machine PROXYHOST login USER password PASSWORD` into ~/.netrc, and run "
            "`chmod 600 ~/.netrc`"
        )
    return text


def _walltime(text: str) -> float:
    try:
        return walltime.seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _wait(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= limits.LONGEST:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a time in seconds, 0 or more")


def _gpus(text: str) -> list[str]:
    try:
        return gpus.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


class EngineProcess:
    """One engine process: the main thread for user code, the agent thread for traffic.

    Args:
        ends_at: when the job ends, on the monotonic clock; None if this process does not know.
    """

    def __init__(self, options: argparse.Namespace, world: World, ends_at: float | None = None) -> None:
        self.options = options
        self.world = world
        self.loop = Loop()
        self.exit_code = 0
        self._failed = False
        self._give_up_at = time.monotonic() + options.wait
        self._session: Any = None
        self._registered = False
        self._retry = _RETRY
        self._told: set[str] = set()
        self._parent = os.getppid()
        host, pid = host_and_pid()
        self._place, self._links, trouble = meet(world.rank, world.leaders, host, world.exchange)
        if trouble:
            log.warning("nodes have no links with each other, so each connects to the controller (%s)", trouble)
        namespace = Namespace(-1, world.mpi)
        namespace.install_as_main()
        self.rank = Rank(namespace, self._signalled, world.rank, world.make_teams)
        own = EngineInfo(world.rank, world.rank if world.mpi else world.wanted, host, pid)
        python = platform.python_version()
        below = len(self._place.local) + len(self._place.remote)
        self.proxy = Proxy(
            self.loop, self.rank, own, world.description, python, below, log.info, self._stopping,
            joined=world.mpi is not None, leaders=world.leaders,
        )  # fmt: skip
        self.proxy.on_complete = self._complete
        self.loop.on_error = self.proxy.fail
        self._listener = UnixListener() if self._place.local else None
        # Collective: every rank learns where its leader listens, and by the first one's account when the job ends.
        left = None if ends_at is None else ends_at - time.monotonic()
        said = world.exchange((self._listener.path if self._listener else "", left))
        self._paths = [path for path, _ in said]
        self._know_end(said[0][1])

    def _know_end(self, left: float | None) -> None:
        if left is not None:
            os.environ[walltime.JOB_END] = f"{time.time() + left:.0f}"  # for user code
        ends_at = None if left is None else time.monotonic() + left
        self.proxy.end.know(ends_at, walltime.job_id(os.environ))

    def run(self) -> int:
        """Work until stopped; returns the exit code."""
        self.rank.install_signals()
        agent = threading.Thread(target=self._agent, name="ipmpi-agent", daemon=True)
        agent.start()
        self.rank.run()
        agent.join(_FINALIZE_TIMEOUT)
        self._leave()
        return self.exit_code

    def _leave(self) -> None:
        """End MPI together with the other ranks, but do not wait for ranks that cannot."""
        sys.stdout.flush()
        if self._failed:
            # Others may be anywhere, also inside a collective: only the launcher can end them all.
            os._exit(self.exit_code)
        # MPI_Finalize waits for all ranks, and keeps the GIL meanwhile: a thread of Python could not end the wait.
        with open(os.devnull, "w", encoding="ascii") as nowhere:
            faulthandler.dump_traceback_later(_FINALIZE_TIMEOUT, exit=True, file=nowhere)
            self.world.finalize()
            faulthandler.cancel_dump_traceback_later()

    # --- the agent thread ----------------------------------------------------------------------------------

    def _agent(self) -> None:
        try:
            self._connect()
            if mpienv.detect(os.environ) is not None:
                _die_with(self._parent)
                self._watch_parent()
            self.loop.run()
        except BaseException:
            log.exception("the agent thread failed; please report this")
            self._fail(1)
            self._end_now()

    def _connect(self) -> None:
        where = self._place
        if self._listener is not None:
            self._listener.accept(self.loop, len(where.local), self.proxy.accept)
        if where.above is not None and where.above_is_local:
            link_up(self.proxy, connect_unix(self._paths[where.above]), FROM_ABOVE)
        if self._links is not None:
            self._use(self._links)
        if self.proxy.is_complete:
            self._complete()

    def _use(self, links: NodeLinks) -> None:
        """Take over the links with other nodes."""
        for peer in links.below:
            self.proxy.add_child(peer.pipe).feed(peer.leftover)
        if links.above is not None:
            link_up(self.proxy, links.above.pipe, FROM_ABOVE).feed(links.above.leftover)

    def _complete(self) -> None:
        """All ranks below are known."""
        if self._place.above is None:
            self._dial()
        else:
            self.proxy.register()

    def _dial(self) -> None:
        # Only the rank that dials needs these; a thousand others do not pay for importing them.
        from .. import furl
        from ..transport.dialled import Callbacks, DialledSession
        from ..transport.proxies import routes_by

        try:
            address = furl.load_furl_or_file(self.options.furl_file, "engine", self.options.name)
            routes = routes_by(self.options.proxy, os.environ, log.warning)
        except KernelError as error:
            self._not_connected(error)
            return
        self._log_once(f"Using furl file: {_furl_file(self.options)}")
        callbacks = Callbacks(
            event=self.proxy.from_above,
            started=self._started,
            interrupted=lambda reason: log.warning("lost the link to the controller (%s); dialling again", reason),
            ended=self._not_connected,
        )
        self._session = DialledSession(self.loop, address, RECEIVES["engine"], callbacks, routes=routes)
        self._session.open()

    def _log_once(self, text: str) -> None:
        """What is the same at each try is told at the first."""
        if text not in self._told:
            self._told.add(text)
            log.info("%s", text)

    def _started(self) -> None:
        self._registered = True
        self.proxy.forget_controller()
        self.proxy.above = self._session
        self.proxy.register()

    def _not_connected(self, error: KernelError) -> None:
        waiting = not self._registered and time.monotonic() < self._give_up_at
        if waiting and isinstance(error, OSError | FurlError):
            self._log_once(f"waits for the controller, up to {self.options.wait:g} s: {error}")
            self.loop.call_later(self._retry, self._dial)
            self._retry = min(self._retry * _RETRY_FACTOR, _RETRY_LONGEST)
            return
        log.error("error connecting to controller: %s", error)
        print(f"ipengine: {error}", file=sys.stderr, flush=True)
        self._fail(1)
        self.proxy.stop(str(error))

    def _watch_parent(self) -> None:
        """The launcher is our parent; when it is gone, nobody will ever end us."""
        if os.getppid() != self._parent:
            self._fail(1)
            self.proxy.stop("the launcher (mpirun) is gone")
            return
        self.loop.call_later(limits.PARENT_POLL, self._watch_parent)

    def _signalled(self, name: str) -> None:
        if name == "SIGUSR1":
            self.loop.call_threadsafe(self.proxy.end.warned)
        else:
            job = walltime.job_id(os.environ)
            why = f", as when job {job} is cancelled or its time is up" if job else ""
            self.loop.call_threadsafe(lambda: self.proxy.stop(f"got {name}{why}"))

    def _fail(self, code: int) -> None:
        self._failed = True
        self.exit_code = code

    def _stopping(self, reason: str, orphaned: bool) -> None:
        if self.proxy.has_failed:
            self._fail(1)
        if orphaned:
            # Where a launcher lets ranks survive others, it takes a code for a failure, and ends the whole set.
            self._fail(0)
            self._end_now()
        if self._session is not None:
            self._session.close(reason, self.proxy.has_failed)
        if self._listener is not None:
            self._listener.close()
        self.rank.stop()
        if self.rank.is_busy:
            self.rank.interrupt_all()
        # The main thread may be deep in a library; it has this long.
        watch = threading.Timer(limits.INTERRUPT_GRACE, self._end_if_running)
        watch.daemon = True
        watch.start()
        self.loop.stop()

    def _end_if_running(self) -> None:
        if self.rank.is_busy:
            self._end_now()

    def _end_now(self) -> None:
        logging.shutdown()
        os._exit(self.exit_code)


def _die_with(parent: int) -> None:
    """Have the system kill this process when the launcher ends, even while user code keeps the GIL in C.

    The system goes by the launcher's thread that started us, which need not live as long as the launcher. So this
    is done only where Linux shows that it was the first thread; :meth:`EngineProcess._watch_parent` is for the
    rest, and ends more politely where it can.
    """
    try:
        with open(f"/proc/{parent}/task/{parent}/children", encoding="ascii") as file:
            if str(os.getpid()) not in file.read().split():
                return
        # Only here, as each import costs on a thousand ranks; numpy takes it along anyway.
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    except (OSError, ImportError, AttributeError) as error:
        log.info("the system cannot end this process together with its launcher: %s", error)


def _furl_file(options: argparse.Namespace) -> Path:
    """Where the controller's furl is, as it was given or by its name."""
    from .. import furl

    if options.furl_file:
        return Path(options.furl_file if "://" not in options.furl_file else "given").expanduser()
    return furl.cluster_furl_file("engine", options.name) if options.name else furl.default_furl_file("engine")


def _find_end(option: float | None, launched: mpienv.LaunchedRank | None) -> float | None:
    """When this job ends, on the monotonic clock. Rank 0 also asks the batch system, before MPI starts."""
    now, first = time.monotonic(), launched is None or launched.rank == 0
    left = walltime.exported(os.environ, time.time()) if option is None else option
    if left is None and first and walltime.is_in_job(os.environ):
        # Only here, as each import costs on a thousand ranks.
        from .askjob import ask

        left = ask(os.environ, log.info)
        now = time.monotonic()
    if left is not None and first:
        log.info("this job ends in %.0f s", left)
    return None if left is None else now + left


def _take_gpus(numbers: Sequence[str], launched: mpienv.LaunchedRank | None) -> None:
    chosen = gpus.variables(numbers, launched, os.environ)
    os.environ.update(chosen)
    said = ", ".join(f"{name}={value}" for name, value in chosen.items())
    log.info("GPUs of this rank: %s", said or "as they are, since the launcher has shared them out")


def main(argv: Sequence[str] | None = None) -> int:
    """Run an engine; returns the exit code."""
    options = parser().parse_args(argv)
    add_current_folder()  # for modules of the user
    launched = mpienv.detect(os.environ)
    sys.setswitchinterval(0.0005)  # the agent must not wait 5 ms for user code that computes

    def warn(text: str) -> None:
        if launched is None or launched.rank == 0:
            print(f"ipengine: {text}", file=sys.stderr, flush=True)

    try:
        rank = None if launched is None else launched.rank
        # By hand only: a thousand ranks do not need to know where furls are.
        furl_file = None if options.logfile else _furl_file(options)
        start_log(options.logfile, "ipengine", rank, furl_file)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # it warns, and would end a process that is not ready for it
        ends_at = _find_end(options.walltime, launched)
        if options.gpus:
            _take_gpus(options.gpus, launched)
        world = start_world(options.mpi, launched, sys.executable, warn)
    except KernelError as error:
        warn(str(error))
        log.error("%s", error)
        return 1
    log.info("pid %d, %s", os.getpid(), world.description)
    if world.mpi is not None:
        log.info("MPI started with rank = %d and size = %d", world.rank, world.size)
    elif launched is not None and options.mpi == "auto":
        warn(f"{world.description}; each engine connects by itself")
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        process = EngineProcess(options, world, ends_at)
    except KernelError as error:
        log.error("%s", error)
        print(f"ipengine: {error}", file=sys.stderr, flush=True)
        logging.shutdown()
        os._exit(
            1
        )  # MPI_Finalize would wait for the other ranks, and they wait for this one: the launcher ends them
    code = process.run()
    logging.shutdown()
    return code


if __name__ == "__main__":
    sys.exit(main())

"""``ipcontroller``: the controller, which listens for engines and clients."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .. import __version__, furl, limits
from ..controller.entry import Door
from ..controller.farm.order import ORDERS, Order, Queued
from ..controller.interfaces import CLIENT_INTERFACES, Interface
from ..controller.namedtasks import Keep
from ..controller.restoring import restore
from ..controller.service import ControllerService
from ..errors import ControllerStartError, KernelError
from ..furl import Furl
from ..ownpath import add_current_folder
from ..tls import Identity, load_or_create_identity
from ..transport.dial.addresses import is_unspecified, local_addresses
from ..transport.dial.listen import Acceptor, Listener
from ..transport.dial.locallisten import LocalListener
from ..transport.loop import READ, Loop
from . import argtypes
from .boundedlog import bound_log_files
from .grantsfile import restore_grants
from .journalfile import close_journal, open_history, open_journal
from .logs import start_log
from .ownlimits import guard_secrets_and_allow_links

log = logging.getLogger("ipcontroller")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argtypes.Parser(
        prog="ipcontroller",
        description="Start the controller that engines and clients connect to.",
        epilog="With --client-port and --engine-port, certificate and secrets are kept, so that furl files copied "
        "once stay valid. Without them everything is new at each start.",
    )
    _add_addresses(p)
    p.add_argument(
        "--interface",
        action="append",
        type=argtypes.plug_in,
        default=[],
        metavar="MODULE:NAME",
        help="a further client interface",
    )
    p.add_argument(
        "--scheduler", type=argtypes.scheduler, default="priority", metavar="ORDER",
        help="in which order tasks are given to engines: fifo, lifo, priority (default; first in, first out among "
        "equal ones), or a class of your own as MODULE:CLASS",
    )  # fmt: skip
    p.add_argument(
        "--journal", type=argtypes.path_name, default="none", metavar="FILE",
        help="keep tasks, their results and sessions in this file on a local disk, so that nothing that was "
        "accepted is lost when the controller is killed and started again with the same options; needs "
        "--client-port and --engine-port (default: none)",
    )  # fmt: skip
    p.add_argument(
        "--keep", type=argtypes.duration, default=limits.KEEP, metavar="TIME",
        help="how long results of tasks that were submitted with a name, or by a client that is gone, are kept "
        "after the last of them has ended: 90s, 12h, 7d (default: 7d)",
    )  # fmt: skip
    p.add_argument(
        "--keep-bytes", type=argtypes.size, default=None, metavar="N",
        help="how many bytes of them, with their arguments; what has ended first is dropped first (default: 10G "
        "in a journal, 256M in memory)",
    )  # fmt: skip
    p.add_argument(
        "--admit", type=argtypes.admission, default="all", metavar="all|ask",
        help="all: who has an engine furl may add engines; clients are told of those that nobody expects. ask: "
        "these wait until a client admits them (ipcluster admit, mec.admit())",
    )  # fmt: skip
    p.add_argument(
        "--name", type=argtypes.cluster_name, default="", metavar="NAME",
        help="name of the cluster: furl files go to the folder security/NAME, for MultiEngineClient(name=NAME) "
        "and ipengine --name NAME, the log file to log/NAME",
    )  # fmt: skip
    p.add_argument(
        "-l", "--logfile", type=argtypes.path_name, default="", metavar="PREFIX",
        help="log to PREFIX<host>-<pid>.log only (default: to log/NAME/ipcontroller-<host>-<pid>.log in "
        "$IPYTHONDIR or ~/.ipython, and to the terminal)",
    )  # fmt: skip
    # Who starts it will start it again if it is killed: with the ports, certificates and furls that it had.
    p.add_argument("--start", choices=["once", "first", "again"], default="once", help=argparse.SUPPRESS)
    p.add_argument("--ready-fd", type=int, default=None, help=argparse.SUPPRESS)
    p.add_argument("--lifeline-fd", type=int, default=None, help=argparse.SUPPRESS)
    p.add_argument("--version", action="version", version=f"ipmpi {__version__}")
    return p


def _add_addresses(p: argparse.ArgumentParser) -> None:
    """Add options of addresses and furl files."""
    for side, who in (("client", "clients"), ("engine", "engines")):
        group = p.add_argument_group(f"where {who} connect")
        group.add_argument(
            f"--{side}-ip",
            type=argtypes.host,
            default="",
            metavar="IP",
            help="address to listen on (default: all)",
        )
        group.add_argument(
            f"--{side}-port", type=argtypes.port, default=0, metavar="N", help="port (default: a free one)"
        )
        group.add_argument(
            f"--{side}-location", type=argtypes.hosts, default="", metavar="HOST[,HOST]",
            help="host names or addresses to put into the furl (default: found out)",
        )  # fmt: skip
    files = p.add_argument_group("furl files (default: in the security folder of $IPYTHONDIR or ~/.ipython)")
    for role, text in (
        ("engine", "engines"), ("multiengine", "MultiEngineClient"), ("task", "TaskClient"),
        ("monitor", "monitors (read only)"),
    ):  # fmt: skip
        files.add_argument(
            f"--{role}-furl-file", type=argtypes.path_name, default="", metavar="FILE", help=f"furl for {text}"
        )


def _load(option: str, name: str, form: str) -> Any:
    """Load the object that a plug-in option names."""
    module, _, attribute = name.partition(":")
    add_current_folder()
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ControllerStartError(f"{option} {name}: {error}. It is written {form}") from None


def _interface(name: str) -> Interface:
    found = _load("--interface", name, "MODULE:NAME")
    if not isinstance(found, Interface):
        raise ControllerStartError(f"--interface {name} is not an ipmpi.controller.interfaces.Interface")
    return found


def _scheduler(name: str) -> Order:
    kind = ORDERS[name] if name in ORDERS else _load("--scheduler", name, f"{', '.join(ORDERS)} or MODULE:CLASS")
    try:
        order: Order = kind()
        order.rank(Queued(1, 1, 1, 0, None))
        bool(order.newest_first)
    except Exception as error:
        raise ControllerStartError(
            f"--scheduler {name}: {type(error).__name__}: {error}. It has to be a class like those in "
            "ipmpi.controller.farm.order"
        ) from error
    return order


def _locations(side: str, option: str, ip: str, listener: Listener) -> list[str]:
    """Return the addresses of a listener for the other end: the given ones, or detected ones."""
    asked = [part.strip() for part in option.split(",") if part.strip()]
    for part in asked:
        if is_unspecified(part):
            raise ControllerStartError(
                f"--{side}-location {part}: that means 'this machine' wherever it is read. Give a name or an "
                "address under which others reach this machine, or leave the option out"
            )
    if asked:
        return asked
    if is_unspecified(ip):
        return local_addresses(ipv6=listener.ipv6)
    return [listener.address] if ip == "localhost" else [ip]


def _furl_file(role: str, given: str, name: str) -> Path:
    if given:
        return Path(given).expanduser()
    return furl.cluster_furl_file(role, name) if name else furl.default_furl_file(role)


class Controller:
    """A controller with its listeners and furl files."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.loop = Loop()
        fixed = (options.client_port and options.engine_port) or options.start != "once"
        self.store = open_journal(options.journal, fixed)
        self.interfaces = [*CLIENT_INTERFACES, *(_interface(name) for name in options.interface)]
        self.service = ControllerService(
            self.loop,
            log.info,
            interfaces=self.interfaces,
            order=_scheduler(options.scheduler or "priority"),
            store=self.store,
            keep=self._keep(),
            on_engines=self._tell_engines,
            on_stop=self.loop.stop,
        )
        entry = self.service.entry
        entry.admission.ask = options.admit == "ask"
        if options.ready_fd is not None:
            entry.admission.on_waiting = lambda text: self._tell({"waits": text})
            entry.whereabouts.ask = lambda launch, question: self._tell({"where": [launch, question]})
        self.furl_files: dict[str, Path] = {}
        self.listeners: list[Acceptor] = []
        self._replaced: dict[Path, bytes] = {}
        self._said = b""
        self._why_stopped = ""

    def start(self) -> None:
        """Restore what the journal holds, listen, and write the furl files."""
        if self.store is not None:
            self.service.history.keep_in(open_history(self.store))
            restore(self.store.load(bodies=False), self.service, self.loop.now(), log.info)
        o = self.options
        files = {"engine": o.engine_furl_file, "mec": o.multiengine_furl_file, "tc": o.task_furl_file,
                 "monitor": o.monitor_furl_file}  # fmt: skip
        clients = [interface.role for interface in self.interfaces]
        for side, roles in (("client", clients), ("engine", ["engine"])):
            ip, port = getattr(o, f"{side}_ip"), getattr(o, f"{side}_port")
            targets = {role: _furl_file(role, files.get(role, ""), o.name) for role in roles}
            identity, secrets = self._identity(side, port, targets)
            port = port or self._former_port(targets)
            admit, given = self.service.sessions.admit, self.service.entry.grants.secret_for
            listener = Listener(self.loop, (ip, port), identity, secrets, admit, log.warning, given)
            listener.on_lane = self.service.lanes.came
            self.listeners.append(listener)
            self._listen_locally(identity, listener.port, secrets)
            hosts = _locations(side, getattr(o, f"{side}_location"), ip, listener)
            hints = tuple((host, listener.port) for host in hosts)
            if not (o.client_port or o.engine_port):  # else the files are kept for the next start
                self._make_way(targets)
            door = Door(identity.fingerprint, hints, identity.master, secrets, self._write_furl)
            self.service.entry.serves(door)
            self.furl_files.update(targets)
            for role in targets:
                self._write_furl(door.furl(role, secrets[role]))
            log.info("Listening for %s on %s:%d", ", ".join(roles), ip or "*", listener.port)

        kept = [role for role in self.furl_files if (o.engine_port if role == "engine" else o.client_port)]
        restore_grants(self.service.entry, self.furl_files, kept, o.start)
        self.service.entry.end_tasks_of_ended()

    def _keep(self) -> Keep:
        size = self.options.keep_bytes
        usual = limits.KEEP_IN_MEMORY if self.store is None else limits.KEEP_BYTES
        return Keep(self.options.keep, usual if size is None else size)

    def _write_furl(self, made: Furl) -> str:
        """Write the furl file of a role, and return its name."""
        path = self.furl_files[made.role]
        furl.save(path, made)
        if path in self._replaced:
            self._replaced[path] = f"{made}\n".encode("ascii")
        log.info("Saving furl for %s to file: %s", made.role, path)
        return str(path)

    def _listen_locally(self, identity: Identity, port: int, secrets: dict[str, bytes]) -> None:
        """Listen on the Unix socket beside a TCP port, too."""
        admit, given = self.service.sessions.admit, self.service.entry.grants.secret_for
        try:
            local = LocalListener(self.loop, identity.fingerprint, port, secrets, admit, log.warning, given)
        except OSError as error:
            log.warning("Processes of this machine connect by TCP: %s", error.strerror or error)
        else:
            self.listeners.append(local)

    def _make_way(self, targets: dict[str, Path]) -> None:
        """Set the present default furl files aside, to be restored when this controller ends."""
        own = [path for role, path in targets.items() if path == furl.default_furl_file(role)]
        if own and not self._replaced:
            # Imported here: a controller of ipcluster does not need it.
            from ..launch.cluster import defaultfurls

            with contextlib.suppress(OSError):  # writing them will report the error
                defaultfurls.set_aside()
        self._replaced.update(dict.fromkeys(own, b""))

    def _give_back(self) -> None:
        if self._replaced:
            from ..launch.cluster import defaultfurls

            with contextlib.suppress(OSError):
                defaultfurls.give_back(self._replaced)

    def _identity(self, side: str, port: int, targets: dict[str, Path]) -> tuple[Identity, dict[str, bytes]]:
        """Certificate and secrets: kept ones if the port is fixed, or for a further start, else new ones."""
        now = time.time()
        certificate = next(iter(targets.values())).parent / f"ipcontroller-{side}.pem"
        if not port and self.options.start != "again":
            identity = Identity.create(now)
            if self.options.start == "first":
                furl.write_private(certificate, identity.to_pem())
            return identity, {role: os.urandom(furl.SECRET_BYTES) for role in targets}
        identity = load_or_create_identity(certificate, now)
        secrets = {}
        for role, path in targets.items():
            secrets[role] = os.urandom(furl.SECRET_BYTES)
            if path.exists():
                old = furl.load(path, role)
                if old.fingerprint == identity.fingerprint:
                    secrets[role] = old.secret
        return identity, secrets

    def _former_port(self, targets: dict[str, Path]) -> int:
        """Return the port that clients or engines know, if this is not the first controller of its cluster."""
        if self.options.start != "again":
            return 0
        role, path = next(iter(targets.items()))
        return furl.load(path, role).hints[0][1]

    def _tell(self, record: dict[str, object]) -> None:
        fd = self.options.ready_fd
        if fd is not None:
            try:
                os.write(fd, json.dumps(record).encode() + b"\n")
            except OSError:
                self.options.ready_fd = None

    def _tell_engines(self, count: int) -> None:
        record: dict[str, object] = {"engines": count}
        if not count and self.service.ended_by_client:
            record["ordered"] = True
        if not count and self.service.fates.aborted:
            record["aborted"] = self.service.fates.aborted
        if not count and self.service.fates.restarted:
            record["restarted"] = self.service.fates.restarted
        if not count and self.service.tasks:
            record["tasks"] = self.service.tasks
        if self.service.losses.last is not None:
            record["lost"] = self.service.losses.last
            self.service.losses.last = None
        self._tell(record)

    def run(self) -> None:
        """Serve until told to stop."""

        def stop() -> None:
            log.info("Stopping")
            self.service.stop_engines()
            self.service.stop_soon()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.loop.call_threadsafe(stop))
        self.loop.wake_on_signals()
        if self.options.lifeline_fd is not None:
            self._watch_lifeline(self.options.lifeline_fd, stop)
        names = {"mec": "multiengine_furl_file", "tc": "task_furl_file"}
        files = {names.get(role, f"{role}_furl_file"): str(path) for role, path in self.furl_files.items()}
        self._read_lifeline()  # engines look for the furl file of their launch when they hear that this is ready
        self._tell({"pid": os.getpid(), **files})
        log.info("Controller is ready (pid %d)", os.getpid())
        self.loop.run()
        for listener in self.listeners:
            listener.close()
        self.service.lanes.close()
        self._read_lifeline()  # the last lines may arrive together with the signal
        why = f": {self._why_stopped.rstrip('.')}" if self._why_stopped else ""
        self.service.sessions.dismiss(f"the controller was stopped{why}")
        self._give_back()
        self.service.entry.close()
        self.service.journal.finish()
        if self.store is not None:
            close_journal(self.store, is_kept=self.options.start == "once")
        log.info("Controller stopped")

    def _launch(self, said: dict[str, Any]) -> None:
        """Write the furl file of a launch of ipcluster."""
        path, seconds = Path(said["file"]), None if said["seconds"] is None else float(said["seconds"])
        name, engines, nodes = str(said["name"]), int(said["engines"]), said.get("nodes")
        made = self.service.entry.begin_launch(
            name, engines, seconds, local=bool(said["local"]), again=bool(said.get("again")),
            nodes=None if nodes is None else list(map(str, nodes)), asks=bool(said.get("asks")),
        )  # fmt: skip
        furl.save(path, made)
        log.info("Saving furl for the engines of this launch to file: %s", path)

    def _watch_lifeline(self, descriptor: int, stop: Callable[[], None]) -> None:
        def ready(_events: int) -> None:
            if not self._read_lifeline():
                self.loop.unregister(descriptor)
                log.info("the parent process of this controller has ended")
                stop()

        os.set_blocking(descriptor, False)
        self.loop.register(descriptor, READ, ready)

    def _read_lifeline(self) -> bool:
        """Read texts of ipcluster for clients, one per line; return False at the end of the pipe."""
        if self.options.lifeline_fd is None:
            return True
        try:
            data = os.read(self.options.lifeline_fd, 65536)
        except OSError:  # nothing new
            return True
        *lines, self._said = (self._said + data).split(b"\n")
        for line in lines:
            try:
                said = json.loads(line)
                if "launch" in said:
                    self._launch(said["launch"])
                elif "runs" in said:
                    name, nodes, question = said["runs"]
                    self.service.entry.launch_runs_on(str(name), nodes, int(question))
                elif "stopped" in said:
                    self._why_stopped = str(said["stopped"])
                    log.info("About to be stopped: %s", self._why_stopped)
                else:
                    self.service.losses.explained(str(said["notice"]), self.loop.now())
            except (ValueError, TypeError, KeyError, AttributeError, KernelError):
                log.warning("ipcluster said something unexpected: %.200r", line)
        return bool(data)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a controller; return the exit code."""
    options = parser().parse_args(argv)
    guard_secrets_and_allow_links()
    os.umask(0o077)
    try:
        engine_furl_file = _furl_file("engine", options.engine_furl_file, options.name)
        start_log(options.logfile, "ipcontroller", furl_file=engine_furl_file)
        bound_log_files()
        controller = Controller(options)
        controller.start()
    except KernelError as error:
        log.error("%s", error)
        print(f"ipcontroller: {error}", file=sys.stderr)
        return 1
    controller.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())

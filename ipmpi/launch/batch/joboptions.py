"""The options of a job script, and their checks (no I/O)."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from ipmpi.errors import LauncherError
from ipmpi.launch.batch.batchsystem import Shape
from ipmpi.launch.processes.mpi import FaultTolerance

Kind = Literal["engines", "cluster", "array"]

MEMORY: Final = re.compile(r"\d{1,12}[KMGT]?", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class JobOptions:
    """The options of a job script.

    Attributes:
        kind: ``engines`` (one set of engines; the controller is elsewhere), ``cluster`` (a controller too, on the
            first node), or ``array`` (a job array for the farm: of single engines without MPI, or with
            ``per_node`` of sets of so many on one machine).
        n: how many engines; 0 means ``nodes`` times ``per_node``.
        nodes: on how many machines; 0 lets the batch system decide.
        per_node: engines on each machine; 0 likewise.
        cores_per_engine: cores of each engine, which is also its number of threads.
        walltime: seconds that the job may last; None leaves it to the queue.
        queue: queue or partition.
        account: project that pays for it.
        name: name of the job.
        qos: quality of service, where there is such a thing.
        constraint: which kind of node, where there is such a thing.
        memory: memory of each machine, like ``64G``.
        gpus_per_node: GPUs of each machine, to be shared among its engines.
        gpu_order: in which order engines get them, like ``3,2,1,0``; empty for that of their numbers.
        extra_directives: further ones, without what they begin with: ``-C nvme``.
        skipped_directives: leave out directives that contain one of these texts.
        prologue: lines of shell that prepare the software, such as ``module load python``.
        launcher: ``auto``, ``srun``, ``mpirun``, ``mpiexec``, or the path of a launcher.
        launcher_options: further options of the launcher, each of one word or more.
        fault_tolerance: whether ranks of Open MPI outlive each other: ``auto`` (if they are on one machine),
            ``on`` or ``off``.
        srun_mpi: the ``--mpi`` of srun: ``auto``, ``pmix``, ``pmi2``, ``cray_shasta`` or ``none``.
        mpi: ``auto``, ``mpi4py`` or ``none``, as for ``ipengine``.
        comm: ``plain`` or ``polled``, as for ``ipengine``.
        on_loss: as for ``ipengine``; "" if it was not given.
        python: the interpreter of the engines.
        engine_furl_file: where the engines' furl is, on the nodes.
        log_dir: folder of all log files, on the nodes.
        warn_before: seconds before the end at which the engines get a signal, where the batch system can do so;
            0 switches it off.
        proxy: for ``ipengine --proxy``.
        template: path of a template to use instead of the built-in one.
        requeue: start the job again if a node fails.
        restarts: how often the job starts engines again that have all ended, as when one has died and their
            launcher has ended the others. Single engines of a job array are not.
        stage_env: the packed environment that is copied to the nodes; None reads modules where they are.
        controller_args: further arguments of ``ipcontroller``.
    """

    kind: Kind = "engines"
    n: int = 0
    nodes: int = 0
    per_node: int = 0
    cores_per_engine: int = 1
    walltime: int | None = None
    queue: str = ""
    account: str = ""
    name: str = "ipmpi"
    qos: str = ""
    constraint: str = ""
    memory: str = ""
    gpus_per_node: int = 0
    gpu_order: str = ""
    extra_directives: tuple[str, ...] = ()
    skipped_directives: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()
    launcher: str = "auto"
    launcher_options: tuple[str, ...] = ()
    fault_tolerance: FaultTolerance = "auto"
    srun_mpi: str = "auto"
    mpi: str = "auto"
    comm: str = "plain"
    on_loss: str = ""
    python: str = sys.executable
    engine_furl_file: Path = Path("ipcontroller-engine.furl")
    log_dir: Path = Path("logs")
    warn_before: int = 120
    proxy: str = ""
    template: Path | None = None
    requeue: bool = False
    restarts: int = 0
    stage_env: Path | None = None
    controller_args: tuple[str, ...] = ()

    def shape(self) -> Shape:
        """Return the resources of one element of the job; only a job array has several.

        Raises:
            LauncherError: the numbers are inconsistent.
        """
        rest = (self.cores_per_engine, self.gpus_per_node, self.memory)
        if self.kind == "array":
            if self.nodes or not self.n:
                raise LauncherError(
                    "each element of a job array is on one machine: say how many engines, with -n N, and how many "
                    "of them in each element, with --per-node N (1)"
                )
            each = self.per_node or 1
            if self.n % each:
                raise LauncherError(f"{self.n} engines are no whole number of elements with {each} in each")
            return Shape(each, 1, each, *rest)
        n = self.n or self.nodes * self.per_node
        if n < 1:
            raise LauncherError("how many engines? Say -n N, or --nodes N and --per-node N")
        if not self.nodes and not self.per_node:
            return Shape(n, 0, 0, *rest)
        per_node = self.per_node or -(-n // self.nodes)
        nodes = self.nodes or -(-n // per_node)
        if n > nodes * per_node or n <= (nodes - 1) * per_node:
            raise LauncherError(
                f"{n} engines do not fill {nodes} nodes with {per_node} on each: "
                "leave out one of -n, --nodes and --per-node"
            )
        return Shape(n, nodes, per_node, *rest)

    def elements(self) -> int:
        """Return the number of elements of a job array; 1 for other jobs."""
        return self.n // (self.per_node or 1) if self.kind == "array" else 1

    def launched(self) -> bool:
        """Return whether a launcher starts the engines, rather than the script of a job array."""
        return self.kind != "array" or self.per_node > 1

    def check(self) -> None:
        """Refuse values that would change the meaning of the script, or reveal a secret.

        Raises:
            LauncherError: the message says what to do instead.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            for text in value if isinstance(value, tuple) else (value,):
                if isinstance(text, str) and re.search(r"[\r\n\0]", text):
                    raise LauncherError(f"there is a line break in {field.name.replace('_', ' ')}: {text!r}")
                if isinstance(text, str) and not text.isascii() and re.search("[\ud800-\udfff]", text):
                    raise LauncherError(f"{field.name.replace('_', ' ')} is no text in UTF-8: {text!r}")
        for name in ("queue", "account", "qos", "constraint"):
            if re.search(r"\s", getattr(self, name)):
                raise LauncherError(f"there is a blank in the {name} {getattr(self, name)!r}")
        if not re.fullmatch(r"[\w.+-]+", self.name):
            raise LauncherError(f"{self.name!r} is no name for a job: use letters, digits and any of _ . + -")
        if self.memory and not MEMORY.fullmatch(self.memory):
            raise LauncherError(f"{self.memory!r} is no amount of memory: write it like 500M or 64G")
        if "@" in urlsplit(self.proxy).netloc:
            raise LauncherError(
                "leave user and password out of --proxy: other users could read them in the list of processes. "
                "Set https_proxy in a file that only you can read, and have the job read it: --prologue '. FILE'"
            )

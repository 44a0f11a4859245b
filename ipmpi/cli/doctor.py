"""``ipcluster doctor``: check everything that a cluster needs, and say what to do."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from .. import __version__, furl
from ..errors import FurlError, KernelError, LauncherError, SecurityError, VersionError
from ..furl import Furl, ipython_dir, security_dir
from ..launch.batch.allocation import allocation, leftover, without_job
from ..launch.cluster import records
from ..launch.cluster.local import job_is_over
from ..launch.doctor import diagnostics as f
from ..launch.doctor.check_allocation import check_allocation
from ..launch.doctor.check_engines import (
    check_engine_machines,
    check_libraries,
    check_own_threads,
    check_presence,
    check_shared_files,
    check_threads,
    check_versions,
    check_writing,
    clocks_by_host,
)
from ..launch.doctor.check_files import AREA as FURL_FILES, check_folder, check_furl_file, check_furl_files
from ..launch.doctor.check_machine import check_clocks, check_limits, check_scratch
from ..launch.doctor.check_mpi import AREA as MPI, check_mpi, check_no_launcher, check_srun
from ..launch.doctor.check_network import AREA as NETWORK, check_hints
from ..launch.doctor.diagnostics import Diagnostic
from ..launch.doctor.facts import RankFacts, Versions
from ..launch.doctor.gather import (
    look_at_folder,
    look_at_furl_file,
    look_at_furl_files,
    srun_kinds,
    this_process,
    token_in,
)
from ..launch.doctor.mpi_run import find_launcher, run_mpi_check
from ..transport.dial.proxies import routes_by
from ..transport.dial.reach import try_hints
from ..transport.dial.routes import ProxyRoute
from . import argtypes
from .health import ClientArguments, Health, check_health
from .printing import show, show_diagnostics
from .remote import destination

OTHER_RELEASE: Final = f"Use one release everywhere: pip install 'ipmpi=={__version__}' where the controller runs."
OTHER_FURL: Final = "Copy ipcontroller-mec.furl again from where the controller runs (mode 600)."


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argtypes.Parser(
        prog="ipcluster doctor",
        description="Look at MPI, limits, furl files, the way to the controller, and the engines; and say what to "
        "do about each thing that is not as it should be. Useful before a cluster is started, and while it runs. "
        "The exit code is 1 if something does not work.",
    )
    p.add_cluster_name("look at this cluster (see ipcluster list; default: the one whose furls have no name)")
    p.add_argument(
        "--furl-file", type=argtypes.furl_or_path, default="", metavar="FILE",
        help="look at the controller of this furl (default: ipcontroller-mec.furl in ~/.ipython/security)",
    )  # fmt: skip
    p.add_argument(
        "--ssh",
        type=destination,
        default="",
        metavar="USER@LOGIN",
        help="reach the controller through this login node, as a client does",
    )
    p.add_argument(
        "--proxy",
        type=argtypes.url,
        default="",
        metavar="URL",
        help="reach the controller through this HTTP proxy (none: through none)",
    )
    p.add_argument(
        "--launcher", type=argtypes.command, default="", metavar="COMMAND",
        help="what starts ranks, with its options: 'srun --mpi=pmix' (default: the mpiexec that ipcluster takes)",
    )  # fmt: skip
    p.add_argument(
        "--mpi", choices=["auto", "none"], default="auto", help="none: start no ranks to see whether MPI works"
    )
    p.add_argument(
        "--timeout", type=argtypes.seconds, default=10.0, metavar="SECONDS", help="wait so long for engines (10)"
    )
    p.add_argument("--json", action="store_true", help="print the findings as JSON")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``ipcluster doctor``; returns its exit code."""
    options = parser().parse_args(arguments)
    try:
        found = examine(options, os.environ)
    except KernelError as error:
        print(f"ipcluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ipcluster doctor: interrupted", file=sys.stderr)
        return 130
    host = os.uname().nodename
    if options.json:
        report = {"ipmpi": __version__, "host": host, "findings": [diagnostic.as_dict() for diagnostic in found]}
        show(json.dumps(report, indent=1))
    else:
        show(f"ipmpi {__version__}, Python {sys.version.split()[0]} on {host}: {sys.executable}\n")
        show_diagnostics(found)
        show(f"\n{_summary(found)}")
    return f.exit_code(found)


def _summary(found: Sequence[Diagnostic]) -> str:
    count = {level: sum(1 for diagnostic in found if diagnostic.level is level) for level in f.Level}
    problems, warnings = count[f.Level.PROBLEM], count[f.Level.WARNING]
    if not problems and not warnings:
        return "Nothing is wrong."
    parts = [
        f"{number} {word}{'s' * (number != 1)}" for number, word in ((problems, "problem"), (warnings, "warning"))
    ]
    return ", ".join(parts) + "."


def examine(options: argparse.Namespace, environ: Mapping[str, str]) -> list[Diagnostic]:
    """Gather all facts, and check them.

    Raises:
        LauncherError: there is no cluster of the name that was given.
    """
    record = records.find(options.name) if options.name else None
    machine, versions = this_process()
    found, environ = _allocation(environ)
    found += [] if options.mpi == "none" else _mpi(options.launcher, environ)
    found += check_limits("This process", machine) + check_scratch("This machine", machine)
    if options.ssh:
        way = ClientArguments(options.furl_file, ssh=options.ssh, via=f"through ssh {options.ssh}")
        found += _cluster(way, options.timeout, versions)[0]
        return found
    furls, diagnostic = _files(options.furl_file, {} if record is None else record.furl_files)
    found += diagnostic
    reached, diagnostic = _network(furls, bool(options.furl_file or options.name), environ)
    via = _proxy(options.proxy, furls.get("mec"), environ)
    if "mec" not in furls or not (reached or via):
        return found + diagnostic + check_own_threads(machine)
    way = ClientArguments(str(furls["mec"]), proxy=options.proxy, via="" if reached and not options.proxy else via)
    more, worked = _cluster(way, options.timeout, versions)
    return found + (_softened(diagnostic) if worked and not reached else diagnostic) + more


def _proxy(chosen: str, address: Furl | None, environ: Mapping[str, str]) -> str:
    """Return a text about the proxy that a client would use for this address; '' for none.

    Raises:
        ClientError: the chosen one is not a URL of a proxy.
    """
    complaints: list[str] = []
    routes = routes_by(chosen or None, environ, complaints.append)
    hosts = [] if address is None else [host for host, _ in address.hints]
    proxies = [route for route in routes if isinstance(route, ProxyRoute) and any(map(route.serves, hosts))]
    return proxies[0].via if proxies else ""


def _softened(found: Sequence[Diagnostic]) -> list[Diagnostic]:
    """Downgrade the failure of the direct connection, since another way works."""
    hard = (f.Level.WARNING, f.Level.PROBLEM)
    return [each._replace(level=f.Level.NOTE, fix="") if each.level in hard else each for each in found]


def _allocation(environ: Mapping[str, str]) -> tuple[list[Diagnostic], Mapping[str, str]]:
    """Check the job in the environment; also return the environment without a job that is not ours."""
    host = os.uname().nodename
    left = leftover(environ, host, job_is_over)
    return check_allocation(allocation(environ), left, host), without_job(environ) if left else environ


def _mpi(chosen: str, environ: Mapping[str, str]) -> list[Diagnostic]:
    ranks: tuple[RankFacts, ...] = ()
    try:
        launcher = find_launcher(chosen)
        if launcher is None:
            found = check_no_launcher(sys.executable)
        else:
            mpi = run_mpi_check(launcher, environ)
            found, ranks = check_mpi(mpi), mpi.ranks
    except LauncherError as error:
        found = [f.problem(MPI, "launcher", f"{error}.", "Name another one: ipcluster doctor --launcher PATH")]
    srun = srun_kinds(environ)
    return found if srun is None else found + check_srun(srun[0], ranks, srun[1])


def _files(chosen: str, of_cluster: Mapping[str, str]) -> tuple[dict[str, Furl], list[Diagnostic]]:
    """Return the usable furls by role, and the diagnostics of their files."""
    user = os.geteuid()
    if "://" in chosen:
        try:
            return {"mec": furl.load_furl_or_file(chosen, "mec")}, []
        except KernelError as error:
            return {}, [f.problem(FURL_FILES, "furl-file", f"{error}.", "Name a file instead: --furl-file FILE")]
    if chosen:
        facts = look_at_furl_file(Path(chosen).expanduser().absolute(), "mec")
        if facts.kind == "missing":
            text, fix = f"There is no file {facts.path}.", "Copy it from where the controller runs (mode 600)."
            return {}, [f.problem(FURL_FILES, "furl-file", text, fix)]
        files, found = [facts], check_furl_files([facts], user)
    elif of_cluster:
        files = [look_at_furl_file(Path(path), role) for role, path in of_cluster.items()]
        found = check_furl_files(files, user)
    else:
        folder = security_dir().expanduser().absolute()
        files = look_at_furl_files(folder)
        found = check_folder(look_at_folder(folder), user) + check_furl_files(files, user)
    usable = {
        facts.role: facts.furl for facts in files if facts.furl is not None and not check_furl_file(facts, user)
    }
    return usable, found


def _network(
    furls: Mapping[str, Furl], asked_for: bool, environ: Mapping[str, str]
) -> tuple[bool, list[Diagnostic]]:
    """Return whether the controller replies to clients, and the diagnostics of each address."""
    found: list[Diagnostic] = []
    answers = False
    for role in ("mec", "engine"):  # the other roles have the address of mec
        if role in furls:
            hints = try_hints(furls[role])
            found += check_hints(role, hints, asked_for, environ)
            answers = answers or (role == "mec" and any(hint.stage == "reached" for hint in hints))
    return answers, found


def _cluster(way: ClientArguments, timeout: float, versions: Versions) -> tuple[list[Diagnostic], bool]:
    """Check a running controller and its engines; also return whether the client could connect."""
    folder = ipython_dir().expanduser().absolute()
    try:
        with token_in(folder) as (token_file, token):
            seen = check_health(way, timeout, token_file)
    except KernelError as error:
        # For instance another protocol version, or an invalid secret.
        text = f"The controller answers, and a client cannot work with it: {error}."
        if way.via:
            text = f"A client does not reach the controller {way.via}: {error}."
        return [f.problem(NETWORK, "connect", text, _fix_of(error, way))], False
    found = [f.ok(NETWORK, "connect", f"A client reaches the controller {way.via}.")] if way.via else []
    return found + _check_all(seen, versions, token, str(folder)), True


def _fix_of(error: KernelError, way: ClientArguments) -> str:
    if isinstance(error, VersionError):
        return OTHER_RELEASE
    if way.ssh:
        return f"Try by hand: ssh {way.ssh.partition(':')[0]} ipcluster list"
    if isinstance(error, SecurityError | FurlError):
        return OTHER_FURL
    if way.via:
        return "Many proxies let port 443 through only: ipcontroller --client-port 443. Or: --ssh user@login"
    return "It may have ended in this moment: ask again."


def _check_all(seen: Health, versions: Versions, token: str, folder: str) -> list[Diagnostic]:
    engines = seen.engines
    found = check_presence(seen.registered, [engine.id for engine in engines], seen.silent)
    found += check_libraries(engines) + check_versions(versions, seen.version, engines)
    found += check_clocks(([] if seen.clock is None else [seen.clock]) + clocks_by_host(engines))
    found += check_threads(engines) + check_engine_machines(engines)
    return found + check_shared_files(token, folder, engines) + check_writing(engines)


if __name__ == "__main__":
    sys.exit(main())

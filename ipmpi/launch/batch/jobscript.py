"""Writes job scripts from the templates in ``jobscripts/templates``."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ipmpi.environment.walltime import clock
from ipmpi.errors import LauncherError
from ipmpi.launch.batch.batchsystem import BatchSystem, Line
from ipmpi.launch.batch.joboptions import JobOptions, Kind
from ipmpi.launch.batch.ranks import bash_array, ranks
from ipmpi.launch.batch.restartnotes import NOTES
from ipmpi.launch.processes.mpi import ENGINE_MODULE
from ipmpi.launch.processes.restarts import SETTLED

if TYPE_CHECKING:
    import jinja2

__all__ = ["JobOptions", "JobScript", "Kind", "render", "templates"]

CONTROLLER_MODULE: Final = "ipmpi.cli.ipcontroller"

ENGINE_WAIT: Final = 60
"""Seconds that engines wait for their furl file: a shared file system may show it late."""


class JobScript(NamedTuple):
    """A job script, and the explanations of its lines."""

    text: str
    reasons: list[tuple[str, str]]


def render(system: BatchSystem, options: JobOptions) -> JobScript:
    """Write the script of a job.

    Raises:
        LauncherError: options do not fit together or are not to be had, there is no launcher, or a template of
            the user's own cannot be used.
    """
    options.check()
    directives = job_directives(system, options)
    if options.launcher_options and not options.launched():
        raise LauncherError("--launcher-option is for a launcher, and single engines of a job array have none")
    started = ranks(system, options, root=os.geteuid() == 0) if options.launched() else None
    engine = engine_command(system, options)
    context = {
        "about": ["Written by ipcluster; other options, or a template of yours, make it write another one."],
        "system": system,
        "shell": system.shell,
        "options": options,
        "directives": [f"{system.prefix} {line.text}" for line in directives],
        "software": options.prologue,
        "launch": started.shell if started else [],
        "engine": bash_array("ENGINE", engine),
        "threads": options.cores_per_engine,
        "furl_file": shlex.quote(str(options.engine_furl_file)),
        "log_dir": shlex.quote(str(options.log_dir)),
        "ends": job_end(system, options.walltime),
        "controller": controller_command(options),
        "restarts": started_again(system, options),
        "stage": staging(system, options),
    }
    text = fill(options.template or f"{options.kind}.sh.j2", context)
    command = [*(started.command if started else []), *engine]
    return JobScript(text, [*_reasons(directives, f"{system.prefix} "), *_reasons(command)])


def job_end(system: BatchSystem, walltime: int | None) -> list[str]:
    """Return lines of shell that find out when the job ends; none if that is unknown."""
    lines = system.shell.end.splitlines()
    if walltime is None:
        return [line for line in lines if "{walltime}" not in line]
    return [line.replace("{walltime}", str(walltime)) for line in lines]


class Requirement(NamedTuple):
    """A requirement of a job, by the name of its directive."""

    name: str
    value: Any
    why: str
    optional: bool = False
    """Whether to leave it out if the batch system has no directive for it."""

    @property
    def last(self) -> int:
        """The last index of arrays that count from 0."""
        return self.value - 1 if isinstance(self.value, int) else 0


_BASH: Final = Requirement("shell", "/bin/bash", "whatever your login shell is", optional=True)


def job_directives(system: BatchSystem, options: JobOptions) -> list[Line]:
    """Return the directives of the job, with explanations.

    Raises:
        LauncherError: the batch system has no directive for something.
    """
    lines = [
        *_written(system, [Requirement("name", options.name, "its name in the queue", optional=True), _BASH]),
        *system.resources(options.shape()),
        *_written(system, [*_wishes(options), *_output(system, options), *_fates(options)]),
    ]
    kept = [line for line in lines if not any(text in line.text for text in options.skipped_directives)]
    return [*kept, *(Line(text, "asked for with --directive") for text in options.extra_directives)]


def _written(system: BatchSystem, needs: list[Requirement]) -> list[Line]:
    for need in needs:
        if need.name not in system.directives and need.value and not need.optional:
            raise LauncherError(
                f"{system.title} has no {need.name}: leave it out, or write what your site has instead with "
                "--directive"
            )
    known = [need for need in needs if need.name in system.directives and need.value]
    return [
        Line(system.directives[need.name].format(value=need.value, last=need.last), need.why) for need in known
    ]


def _wishes(options: JobOptions) -> list[Requirement]:
    time = "" if options.walltime is None else clock(options.walltime)
    asked = [
        Requirement(name, getattr(options, name), "asked for")
        for name in ("queue", "account", "qos", "constraint")
    ]
    return [Requirement("walltime", time, "how long it may last: hours, minutes, seconds"), *asked]


def _output(system: BatchSystem, options: JobOptions) -> list[Requirement]:
    folder, why = shlex.quote(str(options.log_dir)), "what the job prints, beside the engines' own logs"
    count = options.elements()
    if count == 1:
        return [Requirement("output", folder, why, optional=True)]
    name = "output-array" if "output-array" in system.directives else "output"
    each = options.shape().n
    elements = Requirement(
        "array", count, f"{count} jobs, each of {f'{each} engines' if each > 1 else 'one engine'}"
    )
    return [Requirement(name, folder, why, optional=True), elements]


def _fates(options: JobOptions) -> list[Requirement]:
    """Return the requirements about the end of the job, and about failed nodes."""
    needs: list[Requirement] = []
    if options.requeue:
        needs.append(Requirement("requeue", "yes", "when a node fails the job is started again"))
    elif options.kind != "array":  # PBS wants elements of an array to be repeatable
        needs.append(
            Requirement("no-requeue", "no", "it is started once: nobody would expect a second start", True)
        )
        if options.shape().nodes != 1:
            needs.append(Requirement("survive", "yes", "when a node fails, the engines on the others stay", True))
    # Slurm may send it a minute early or late, so that a short job would get it at once.
    if options.walltime is None or options.walltime > 2 * options.warn_before:
        why = f"a signal {options.warn_before} s before the end, for before_walltime"
        needs.append(Requirement("warning", options.warn_before, why, optional=True))
    return needs


class RestartLoop(NamedTuple):
    """The settings by which a job script restarts engines.

    Attributes:
        most: number of restarts, besides those that clients ask for.
        settled: seconds of running engines after which the count is reset.
        ids: the folder for their ids, quoted for the shell.
        notes: the file that gets a line each time, quoted for the shell.
    """

    most: int
    settled: int
    ids: str
    notes: str


def started_again(system: BatchSystem, options: JobOptions) -> RestartLoop | None:
    """Return the settings for restarts; None if there are none."""
    if not options.launched():
        return None
    log = log_name(system, options)
    return RestartLoop(options.restarts, int(SETTLED), f'"{log}-ids"', f'"{log}{NOTES}"')


def log_name(system: BatchSystem, options: JobOptions) -> str:
    """Return the common prefix of all files that engines write into the log folder."""
    return f"$LOGS/ipengine-{system.shell.element if options.elements() > 1 else system.shell.job}"


def staging(system: BatchSystem, options: JobOptions) -> str:
    """Return the file of the packed environment, quoted for the shell; "" if there is none.

    Raises:
        LauncherError: this batch system cannot copy it, or this job has no place for that.
    """
    if options.stage_env is None:
        return ""
    if not system.shell.each_node:
        raise LauncherError(
            f"--stage-env is not for {system.title}, whose jobs have no common way to run a program on each node"
        )
    if not options.launched():
        raise LauncherError("--stage-env is for sets of engines: leave it out, or give --per-node N to --array")
    return shlex.quote(str(options.stage_env))


_ON_LOSS: Final = {
    "shrink": "when an engine dies the others go on; impossible under srun --mpi=pmix and mpiexec of MPICH",
    "abort": "when an engine dies the others end",
    "restart": "when an engine dies all are started again",
}


def engine_command(system: BatchSystem, options: JobOptions) -> list[Line]:
    """Return the command of one engine, with explanations."""
    log, again = log_name(system, options), started_again(system, options)
    command = [
        Line(f"{shlex.quote(options.python)} -m {ENGINE_MODULE}", "the interpreter that ipcluster runs with"),
        Line('--furl-file "$FURL_FILE"', "the controller's address and key"),
        Line(f'-l "{log}-"', "one log file for each engine and agent"),
        Line(f"--mpi {options.mpi if options.launched() else 'none'}", "whether they share a communicator"),
        Line(f"--wait {ENGINE_WAIT}", "a shared file system may show the furl file late"),
    ]
    if options.comm != "plain":
        command.append(Line(f"--comm {options.comm}", "waits of MPI.COMM_WORLD end when another rank fails"))
    if options.on_loss:
        command.append(Line(f"--on-loss {options.on_loss}", _ON_LOSS[options.on_loss]))
    if again is not None:
        command.append(Line(f"--ids-dir {again.ids}", "those that are started in their place get the same ids"))
    if options.gpu_order or options.gpus_per_node:
        gpus = options.gpu_order or options.gpus_per_node
        command.append(Line(f"--gpus {gpus}", "each engine sees its share of the node's GPUs"))
    if options.proxy:
        command.append(Line(f"--proxy {shlex.quote(options.proxy)}", "the way out of the compute nodes"))
    return command


def controller_command(options: JobOptions) -> str:
    """Return the command of the controller, for a job that includes it."""
    words = [options.python, "-m", CONTROLLER_MODULE, *options.controller_args]
    return shlex.join(words)


def fill(template: str | Path, context: dict[str, Any]) -> str:
    """Fill a template: a built-in one by name, or any file by its path.

    Raises:
        LauncherError: it cannot be read, or is not a template.
    """
    import jinja2

    try:
        if isinstance(template, Path):
            return environment().from_string(template.read_text("utf-8")).render(context)
        return environment().get_template(template).render(context)
    except jinja2.TemplateError as error:
        line = f", line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        raise LauncherError(f"the template {template}{line}: {error.message}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise LauncherError(f"the template {template} cannot be read: {error}") from error


def environment() -> jinja2.Environment:
    """Return the environment for our templates, and those of users, which may extend ours."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(templates())),
        undefined=jinja2.StrictUndefined,
        comment_start_string="<#",  # the usual {# is in every ${#VARIABLE} of a shell
        comment_end_string="#>",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )


def templates() -> Path:
    """Return the folder of the built-in templates: in the installed package, or in a checkout."""
    package = Path(__file__).resolve().parents[2]
    places = [folder / "jobscripts" / "templates" for folder in (package, package.parent)]
    return next((place for place in places if place.is_dir()), places[0])


def _reasons(lines: list[Line], before: str = "") -> list[tuple[str, str]]:
    return [(before + line.text, line.why) for line in lines]

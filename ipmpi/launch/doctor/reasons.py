"""Explanations why jobs wait (no I/O)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple


class Reason(NamedTuple):
    """A pattern of the batch system's reasons, its meaning, and a remedy."""

    pattern: str
    meaning: str
    fix: str = ""


_PATIENCE: Final = "Wait. Shorter jobs (--time) and smaller ones (-n, --nodes) find a gap sooner."
_HELD: Final = "Let it go with {release}, if you held it; else ask the administrators."
_LIMIT: Final = "Wait until others of your jobs end, or ask for less: -n, --nodes, --time."

SLURM: Final[Sequence[Reason]] = (
    Reason("Priority", "jobs with a higher priority are before it", _PATIENCE),
    Reason("Resources", "it is the next one, as soon as enough nodes are free", _PATIENCE),
    Reason("BeginTime", "it is not to start before a certain time (a requeued job: after a pause)"),
    Reason("Dependency$", "it waits for another job, as its script asks"),
    Reason(
        "DependencyNeverSatisfied",
        "it waits for another job that has failed, so it will never start",
        "Cancel it (scancel), and submit it without --dependency.",
    ),
    Reason("JobHeldUser", "you held it", "scontrol release JOB"),
    Reason("JobHeldAdmin", "an administrator held it", "Ask the administrators."),
    Reason("JobHoldMaxRequeue", "it was requeued too often", "Look at its output, then: scontrol release JOB"),
    Reason("launch failed requeued held", "a node could not start it", "scontrol release JOB"),
    Reason(
        "PartitionTimeLimit|QOSMaxWallDurationPerJobLimit|AssocMaxWallDurationPerJobLimit",
        "it asks for more time than is allowed there, so it will never start",
        "Submit it again with a shorter --time, or in another --queue (`sinfo` shows their limits).",
    ),
    Reason(
        "PartitionNodeLimit",
        "it asks for more or fewer nodes than its partition allows",
        "Submit it again with other --nodes, or in another --queue (`sinfo` shows their limits).",
    ),
    Reason("PartitionDown|PartitionInactive", "its partition is switched off", "Use another --queue, or wait."),
    Reason(
        "ReqNodeNotAvail",
        "nodes that it needs are down, reserved, or will be in maintenance before it could end",
        "A shorter --time may fit before the maintenance; `sinfo -R` and `scontrol show res` tell more.",
    ),
    Reason("NodeDown", "a node that it needs is down", "Wait, or submit it again without naming nodes."),
    Reason(
        "BadConstraints|Constraints",
        "no node has what it asks for, so it will never start",
        "Submit it again with another --constraint, --memory or --gpus (`sinfo -o '%N %c %m %f %G'` shows nodes).",
    ),
    Reason(
        "InvalidAccount|AssociationResourceLimit|InvalidQOS",
        "its account or QOS is not valid there",
        "Name another --account or --qos; `sacctmgr show assoc user=$USER` lists yours.",
    ),
    Reason("QOSMinGRES|QOSMinCpuNotSatisfied", "it asks for less than its QOS is meant for", "Use another --qos."),
    Reason(
        "(QOS|Assoc)?MaxJobs?(Per|Limit)|QOSMaxJobs|AssocMaxJobs",
        "you have as many jobs running as you may",
        "Wait until one of your jobs ends (squeue --me).",
    ),
    Reason("(QOS|Assoc)MaxSubmitJob", "you have as many jobs queued as you may", "Cancel some (squeue --me)."),
    Reason(
        "QOSUsageThreshold|Budget|(Assoc|QOS)Grp(?!.*Run).*Minutes",
        "your account has used up its time",
        "Use another --account.",
    ),
    Reason("AssocGrp|QOSGrp", "everybody of your account or QOS together uses as much as is allowed", _LIMIT),
    Reason("(QOS|Assoc)Max", "you would use more than one user may", _LIMIT),
    Reason("Licenses", "it waits for a licence"),
    Reason("Reservation", "it waits for its reservation to begin"),
    Reason("Cleaning", "it is requeued, and its former run is cleaned up"),
    Reason("NodesInPowersave|Configuring|BootFail|Prolog", "its nodes are being started, which may take minutes"),
    Reason("None|^$", "the scheduler has not looked at it yet", "Wait a minute."),
)

PBS: Final[Sequence[Reason]] = (
    Reason(
        "Can Never Run|Not enough (total|vnodes)|insufficient total",
        "no part of this machine has what it asks for, so it will never start",
        "Submit it again with other --nodes, --per-node, --memory or --gpus (`pbsnodes -aSj` shows nodes).",
    ),
    Reason(
        "can't fit in the largest placement set|pack placement and won't fit|can't satisfy a multi-node job",
        "no group of nodes that belong together is as large as it asks for, so it will never start",
        "Submit it again with fewer --nodes or --per-node, or without a -l place=group of yours.",
    ),
    Reason(r"Specified .* does not exist|Unknown resource|Invalid Job", "it asks for something that is not there, "
           "so it will never start", "Look at its directives: ipcluster pbs ... --dry-run shows them."),
    Reason("zero shares for fairshare", "your account has no share of this machine",
           "Ask the administrators, or use another --account."),
    Reason("mission (CPU )?share", "your group uses as much of this machine as it may", _LIMIT),
    Reason("primetime only|cross into", "it is to run, or its queue runs, in certain hours only, and it would not "
           "fit into them now", "Wait for these hours. A shorter --time may fit before they end."),
    Reason("subjobs limit", "as many elements of this array run as may at once", "Wait until some of them end."),
    # Everybody's use together: who asks for less may start sooner, and nobody has to.
    Reason(
        "would exceed overall limit|insufficient amount of (queue|server) resource|^(Not Running: )?"
        "(Queue \\S+|Server) job limit has been reached",
        "all jobs there together use as much as they may",
        _PATIENCE,
    ),
    # These three are before those whose words they have too: "held by user7", "would exceed user's limit".
    Reason(r"\b(held|hold)\b", "it is held", _HELD.format(release="qrls JOB")),
    Reason(
        "limit.*user|user.*limit|per-user|by user",
        "you have as many jobs or processors as one user may",
        "Wait until one of your jobs ends (qstat -u $USER).",
    ),
    Reason(
        "limit.*(group|project)|(group|project).*limit|per-(group|project)",
        "your group or project uses as much as it may",
        _LIMIT,
    ),
    Reason(
        "would exceed (.*walltime|.*limit)|exceeds queue|violates queue",
        "it asks for more than its queue allows",
        "Submit it again with a shorter --time or fewer --nodes, or in another --queue (qstat -Qf).",
    ),
    Reason("(conflict|overlap|cross|interfere).*reservation|dedicated time|draining|maintenance|"
           "(top|backfill) ?job",
           "it would not end before a reservation, a maintenance or a larger job begins",
           "A shorter --time may fit before it."),
    Reason("Insufficient amount|not enough free|No available resources|Not enough of the right|Too few free|"
           "Insufficient resources|too few free|exclusive node|Nodes? (not available|ineligible|is in an inelig)|"
           "Node is of an|preempt enough|run limit",
           "not enough nodes are free",
           f"{_PATIENCE} It is to fit on these nodes at all: `pbsnodes -aSj` shows them."),
    Reason("Queue not started|queue.*(stopped|not enabled)", "its queue is switched off", "Use another --queue."),
    Reason("higher priority|fairshare|fair share|strict|job_sort_formula",
           "jobs with a higher priority are before it", _PATIENCE),
    Reason("depend", "it waits for another job, as its script asks"),
    Reason("License|software", "it waits for a licence"),
    Reason("^$", "the scheduler has not looked at it yet", "Wait a minute."),
)  # fmt: skip

TABLES: Final = {"slurm": SLURM, "pbs": PBS}


def explain_reason(system: str, words: str) -> tuple[str, str]:
    """Return the meaning of a batch system's reason and a remedy; unknown reasons are returned as they are."""
    # Slurm lists nodes or limits after the word: "ReqNodeNotAvail, UnavailableNodes:n[1-4]".
    for reason in TABLES.get(system, ()):
        pattern = f"^({reason.pattern})" if system == "slurm" else reason.pattern
        if re.search(pattern, words, 0 if system == "slurm" else re.IGNORECASE):
            return reason.meaning, reason.fix
    return (f"the batch system says: {words}" if words else "the batch system does not say why"), ""

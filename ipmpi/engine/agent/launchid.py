"""The part of a launch that is on this node: its id, and its number of ranks.

Ranks that were started together must find the same id, and no others, before MPI has started. It depends on the
launcher:

* PMIx (Open MPI, ``srun --mpi=pmix``): ``PMIX_NAMESPACE``; it contains process ids, which are reused, so the
  address of the node's server is added;
* hydra: no variable. All ranks of a launch and node inherit one socket, the one in ``HYDI_CONTROL_FD``, and have
  one ancestor, the ``hydra_pmi_proxy``. In a Slurm allocation ``SLURM_*``, ``PMI_JOBID`` and ``PMIX_NAMESPACE``
  are those of the step around it, which several launches may share;
* srun: job and step;
* PALS: ``PALS_APID``;
* Flux: its job;
* any other: the process that started the ranks;
* no launcher: ``IPMPI_LAUNCH``, if it is set for processes that belong together; else the process is alone. Two
  engines that were started from one shell need not belong together.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from ... import processid
from ...environment import mpienv
from ...environment.mpienv import RANK, TOGETHER
from ...namedigest import digest_of


def launch_id(
    environ: Mapping[str, str],
    launcher: int,
    *,
    alone: bool = False,
    user: int | None = None,
    birth: Callable[[int], int] = processid.birth,
    inode: Callable[[int], str] | None = None,
) -> str:
    """Return an id that all ranks of this launch on this node have, and no others.

    Args:
        environ: the environment that the launcher gave this process.
        launcher: process id of the launcher, from :func:`~.watch.parent_launcher`.
        alone: whether this rank gets an id of its own in any case.
        user: uid; None means ours.
        birth: returns the start time of a process.
        inode: identifies an open file; ``""`` if there is none.
    """
    owner = os.geteuid() if user is None else user
    found = mpienv.detect(environ)
    name = "" if alone or local_size(environ) == 1 else _name(environ, found, launcher, birth, inode or _inode)
    return f"{owner}-{name or 'alone-' + os.urandom(16).hex()}"


def local_size(environ: Mapping[str, str]) -> int | None:
    """Return how many processes the launcher starts on this node, including this one; None if unknown.

    If one launch runs several programs, all of them are counted.
    """
    found = mpienv.detect(environ)
    if found is not None:
        return found.local_size
    together = _together(environ)
    return together[1] if together else 1


def _name(
    environ: Mapping[str, str],
    found: mpienv.LaunchedRank | None,
    launcher: int,
    birth: Callable[[int], int],
    inode: Callable[[int], str],
) -> str:
    if found is None:
        together = _together(environ)
        return f"together-{together[0]}" if together else ""
    started_by = f"{launcher}-{birth(launcher)}" if launcher else ""
    name = ""
    if "HYDI_CONTROL_FD" in environ and found.launcher in ("hydra", "mvapich"):
        name = _hydra(environ["HYDI_CONTROL_FD"], started_by, inode)
    elif found.launcher in ("openmpi", "pmix", "srun-pmix"):
        name = _pmix(environ)
    elif found.launcher in ("srun", "srun-pmi2"):
        name = _step(environ)
    elif found.launcher == "pals" and environ.get("PALS_APID"):
        name = f"pals-{environ['PALS_APID']}"
    elif found.launcher == "flux" and environ.get("FLUX_JOB_ID"):
        # Job ids count from one in each instance, and instances are started inside each other.
        name = f"flux-{environ['FLUX_JOB_ID']}-{_digest(environ.get('FLUX_URI', ''))}"
    return name or (f"by-{started_by}" if started_by else "")


def _hydra(descriptor: str, started_by: str, inode: Callable[[int], str]) -> str:
    socket = inode(int(descriptor)) if descriptor.isascii() and descriptor.isdigit() else ""
    return f"hydra-{socket}-{started_by}" if socket or started_by else ""


def _pmix(environ: Mapping[str, str]) -> str:
    namespace = environ.get("PMIX_NAMESPACE", "")
    servers = sorted(f"{name}={uri}" for name, uri in environ.items() if name.startswith("PMIX_SERVER_URI"))
    return f"pmix-{namespace}-{_digest(*servers)}" if namespace else ""


def _step(environ: Mapping[str, str]) -> str:
    """Return job, step, restart count, and node name (several nodes may share a test machine)."""
    job, step = (
        next((environ[name] for name in names if environ.get(name)), "")
        for names in (("SLURM_JOB_ID", "SLURM_JOBID"), ("SLURM_STEP_ID", "SLURM_STEPID"))
    )
    if not job or not step:
        return ""
    return "-".join(("step", job, step, environ.get("SLURM_RESTART_COUNT", "0"), environ.get("SLURM_NODEID", "0")))


def number_together(environ: Mapping[str, str]) -> int:
    """Return the number of this process in a launch without a launcher; 0 if it is alone."""
    text = environ.get(RANK, "")
    return int(text) if _together(environ) and text.isascii() and text.isdigit() else 0


def _together(environ: Mapping[str, str]) -> tuple[str, int] | None:
    name, _, count = environ.get(TOGETHER, "").rpartition(":")
    if name and count.isascii() and count.isdigit() and int(count):
        return name, int(count)
    return None


def _digest(*parts: str) -> str:
    return digest_of("\n".join(parts))[:16]


def _inode(descriptor: int) -> str:
    try:
        found = os.fstat(descriptor)
    except OSError:
        return ""
    return f"{found.st_dev}.{found.st_ino}"

"""Which GPUs of a node belong to which of its ranks, by environment variables.

It has to be done before MPI starts: an MPI that knows of GPUs opens those that it sees. There are two levels.
``ROCR_VISIBLE_DEVICES`` (AMD) hides devices from everything above, which then counts from 0 anew; the others, some
of which AMD reads too, choose among what is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from ..errors import LauncherError
from .mpienv import LaunchedRank

_BELOW: Final = "ROCR_VISIBLE_DEVICES"
_ABOVE: Final = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK")
_DIGITS: Final = 6
"""No node has a hundred thousand GPUs."""
_DEFAULT: Final = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")


def parse(text: str) -> list[str]:
    """The GPUs of a node in the order in which ranks get them: ``4`` means ``0,1,2,3``.

    Raises:
        ValueError: it is neither a number nor a list of numbers.
    """
    parts = [part.strip() for part in text.split(",")]
    numbers = all(part.isascii() and part.isdigit() and len(part) < _DIGITS for part in parts)
    if not numbers or len(set(parts)) != len(parts):
        raise ValueError(f"{text!r} are no GPUs: give how many a node has (4), or their order (3,2,1,0)")
    if len(parts) > 1:
        return parts
    count = int(parts[0])
    if not 1 <= count <= 1024:
        raise ValueError(f"{count} GPUs on a node? Give a number from 1 on, or leave the option out")
    return [str(number) for number in range(count)]


def share(gpus: Sequence[str], rank: int, ranks: int | None) -> list[str]:
    """Those of local rank number ``rank`` of ``ranks``: consecutive ones; shared if there are more ranks.

    Without ``ranks``, one each, in turn.
    """
    if ranks is None:
        return [gpus[rank % len(gpus)]]
    if ranks > len(gpus):
        return [gpus[rank * len(gpus) // ranks]]
    return list(gpus[rank * len(gpus) // ranks : (rank + 1) * len(gpus) // ranks])


def variables(gpus: Sequence[str], launched: LaunchedRank | None, environ: Mapping[str, str]) -> dict[str, str]:
    """What to set for this rank. Nothing, if it sees fewer GPUs than a node has: the launcher has shared them out.

    Where a variable has a list already (the batch system's), numbers count through that.

    Raises:
        LauncherError: the launcher does not say which of the ranks on its node this one is.
    """
    rank, ranks = (0, 1) if launched is None else (launched.local_rank, launched.local_size)
    if rank is None:
        launcher = launched.launcher if launched is not None else ""
        raise LauncherError(
            f"--gpus needs the number of this rank on its node, which {launcher!r} does not say. Start the "
            "engines with mpirun, mpiexec or srun, or set CUDA_VISIBLE_DEVICES in the job script instead"
        )
    numbers = [int(number) for number in share(gpus, rank, ranks)]
    visible = {name: environ[name].split(",") for name in (_BELOW, *_ABOVE) if environ.get(name)}
    if any(max(map(int, gpus)) >= len(listed) for listed in visible.values()):
        return {}
    chosen = {name: ",".join(listed[number] for number in numbers) for name, listed in visible.items()}
    if _BELOW in chosen:
        again = ",".join(str(position) for position in range(len(numbers)))
        return {name: value if name == _BELOW else again for name, value in chosen.items()}
    return chosen or dict.fromkeys(_DEFAULT, ",".join(map(str, numbers)))

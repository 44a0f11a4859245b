"""What a launcher said about a rank can be read in its process, and is inherited by nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, subprocess, sys
from ipmpi.engine.rank.hiddenvariables import hide_rank_variables
hide_rank_variables()
names = sys.argv[1:]
for name in names:
    assert os.environ[name] == os.getenv(name) == "7" and name in os.environ, name
    assert name not in dict(os.environ) and name not in os.environ.copy() and name not in list(os.environ)
look = f"import os; assert os.environ['KEPT'] == 'yes'; print([name for name in {names!r} if name in os.environ])"
for env in (None, {**os.environ}, os.environ, os.environ | {"a": "b"}):
    assert subprocess.check_output([sys.executable, "-c", look], env=env, text=True) == "[]\\n"
assert os.system(f'test -z "${names[0]}"') == 0
os.environ[names[0]] = "8"
assert dict(os.environ)[names[0]] == os.environ[names[0]] == "8"
assert os.environ.pop(names[0]) == "8" and names[0] not in os.environ
del os.environ[names[1]]
assert os.environ.get(names[1]) is None
for missing in (names[0], "NEVER_SET"):
    try:
        del os.environ[missing]
    except KeyError:
        continue
    raise AssertionError(missing)
"""


def test_launchers_variables_are_not_inherited(root: Path) -> None:
    names = ["OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID", "SLURM_STEP_ID", "FLUX_TASK_RANK"]
    environ = {**os.environ, **dict.fromkeys(names, "7"), "KEPT": "yes", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *names],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "name",
    ["OMPI_MCA_btl", "PMIX_MCA_gds", "PRTE_MCA_plm", "SLURM_JOB_ID", "SLURM_NTASKS", "HYDRA_IFACE", "PATH", "PMI"],
)
def test_settings_and_what_describes_the_job_stay(name: str) -> None:
    from ipmpi.environment.mpienv import rank_variables

    assert rank_variables({name: "x", "PMIX_RANK": "1"}) == ["PMIX_RANK"]

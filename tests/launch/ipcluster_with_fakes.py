"""Run ipcluster with the stand-ins of this folder instead of the real controller and engines."""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "cli")]
os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path, os.environ.get("PYTHONPATH", "")])

from fake_batch_system import FAKE  # noqa: E402

from ipmpi.launch.batch import jobscript, registry  # noqa: E402
from ipmpi.launch.cluster import cluster, controller, follow, launch, local, patience  # noqa: E402
from ipmpi.launch.processes import mpi  # noqa: E402

cluster.CONTROLLER_MODULE = controller.CONTROLLER_MODULE = "fake_ipcontroller"  # type: ignore[misc]
for module in (mpi, jobscript, launch, local):
    module.ENGINE_MODULE = "fake_ipengine"  # type: ignore[misc]
registry._BUILT_IN["fake"] = FAKE
patience.ASK_FIRST = patience.ASK_LONGEST = patience.SUBMIT_PAUSE = 0.2  # type: ignore[misc]
follow.IPCLUSTER[:] = [sys.executable, os.path.abspath(__file__)]

from ipmpi.cli.ipcluster import main  # noqa: E402

sys.exit(main())

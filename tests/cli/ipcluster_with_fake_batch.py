"""Run ipcluster with the real controller and engines, and the batch system of this folder; also by ssh."""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(os.path.dirname(HERE))]
os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])

from fake_batch_system import FAKE  # noqa: E402

from ipmpi.cli.ipcluster import main  # noqa: E402
from ipmpi.launch.batch import registry  # noqa: E402
from ipmpi.launch.cluster import follow, patience  # noqa: E402

registry._BUILT_IN["fake"] = FAKE
patience.ASK_FIRST = patience.ASK_LONGEST = patience.SUBMIT_PAUSE = 0.2  # type: ignore[misc]
follow.IPCLUSTER[:] = [sys.executable, os.path.abspath(__file__)]

sys.exit(main())

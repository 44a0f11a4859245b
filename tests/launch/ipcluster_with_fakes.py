"""Run ipcluster with the stand-ins of this folder instead of the real controller and engines."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)

from ipmpi.launch import cluster, controller, follow, local, mpi

cluster.CONTROLLER_MODULE = controller.CONTROLLER_MODULE = "fake_ipcontroller"  # type: ignore[misc]
mpi.ENGINE_MODULE = local.ENGINE_MODULE = "fake_ipengine"  # type: ignore[misc]
follow.IPCLUSTER[:] = [sys.executable, os.path.abspath(__file__)]

from ipmpi.cli.ipcluster import main  # noqa: E402

sys.exit(main())

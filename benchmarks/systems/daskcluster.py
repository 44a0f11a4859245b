"""dask.distributed: a local cluster of processes with one thread each, and default settings else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import distributed
import distributed.security
import numpy

from .calls import nothing, part
from .system import System


def local_cluster(engines: int, **options: Any) -> Any:
    """Start a scheduler and so many workers on this machine, without a dashboard."""
    return distributed.LocalCluster(
        n_workers=engines, threads_per_worker=1, processes=True, dashboard_address=None, **options
    )


class Dask(System):
    """A local cluster."""

    calls: ClassVar[Mapping[str, str]] = {
        "execute_one": "client.run(f, workers=[w])",
        "execute_all": "client.run(f)",
        "push_all": "client.scatter(array, broadcast=True, hash=False)",
        "pull_one": "future.result() of an array that a worker has",
        "scatter": "client.scatter(numpy.array_split(array, n), hash=False)",
        "gather": "numpy.concatenate(client.gather(futures))",
        "submit_result": "client.submit(f, pure=False).result()",
        "tasks_map": "client.gather(client.map(f, items, pure=False))",
        "tasks_submit": "client.submit(f, item, pure=False), client.gather(futures)",
    }

    def __init__(self, engines: int, **options: Any) -> None:
        self._cluster = local_cluster(engines, host="127.0.0.1", **options)
        self._connect(distributed.Client(self._cluster), engines)

    def _connect(self, client: Any, engines: int) -> None:
        self._client, self._engines = client, engines
        self._client.wait_for_workers(engines)
        self._client.run(nothing)
        self._first = sorted(self._client.scheduler_info(n_workers=-1)["workers"])[0]
        self._array: Any = None
        self._parts: Any = None

    def close(self) -> None:  # noqa: D102 - see System
        self._client.close()
        self._cluster.close()

    def execute_one(self) -> object:  # noqa: D102 - see System
        return self._client.run(nothing, workers=[self._first])

    def execute_all(self) -> object:  # noqa: D102 - see System
        return self._client.run(nothing)

    def push_all(self, array: Any) -> object:  # noqa: D102 - see System
        return self._client.scatter(array, broadcast=True, hash=False)

    def prepare_pull(self, size: int) -> None:  # noqa: D102 - see System
        self._array = self._client.submit(part, 0, 1, size, pure=False, workers=[self._first])
        distributed.wait(self._array)

    def pull_one(self) -> Any:  # noqa: D102 - see System
        return self._array.result()

    def scatter(self, array: Any) -> object:  # noqa: D102 - see System
        self._parts = self._client.scatter(numpy.array_split(array, self._engines), hash=False)
        return self._parts

    def gather(self) -> Any:  # noqa: D102 - see System
        return numpy.concatenate(self._client.gather(self._parts))

    def submit_result(self) -> object:  # noqa: D102 - see System
        return self._client.submit(nothing, pure=False).result()

    def tasks_map(self, count: int) -> object:  # noqa: D102 - see System
        return self._client.gather(self._client.map(nothing, range(count), pure=False))

    def tasks_submit(self, count: int) -> object:  # noqa: D102 - see System
        return self._client.gather([self._client.submit(nothing, item, pure=False) for item in range(count)])


class DaskTls(Dask):
    """The same with TLS on its links, as between machines that others share."""

    def __init__(self, engines: int) -> None:
        security = distributed.security.Security.temporary()
        super().__init__(engines, protocol="tls://", security=security)


class DaskElsewhere(Dask):
    """A client of a cluster that runs already, with TLS.

    Args:
        told: what :func:`serve` returned.
    """

    def __init__(self, told: Mapping[str, str]) -> None:
        security = distributed.security.Security(require_encryption=True, **{k: told[k] for k in _CREDENTIALS})
        self._connect(distributed.Client(told["address"], security=security), int(told["engines"]))

    def close(self) -> None:  # noqa: D102 - see System
        self._client.close()


_CREDENTIALS = ("tls_ca_file", "tls_client_cert", "tls_client_key")


def serve(engines: int, host: str) -> tuple[Any, dict[str, str]]:
    """Start a cluster with TLS at an address of this machine; returns it, and what a client has to know."""
    security = distributed.security.Security.temporary()
    cluster = local_cluster(engines, host=host, protocol="tls://", security=security)
    told = {name: str(getattr(security, name)) for name in _CREDENTIALS}
    return cluster, {**told, "address": cluster.scheduler_address, "engines": str(engines)}

"""The layers of the design, as data, and what the sources do, read from their syntax trees.

A new module needs no entry unless its layer differs from that of its package.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Module or package -> (layer, group); the longest name that fits a module counts. A module may import what is
# in a lower layer, and its own group.
LAYERS: dict[str, tuple[int, str]] = {
    "ipmpi": (0, "foundation"),
    "ipmpi.arrays": (1, "arrays"),
    "ipmpi.environment": (0, "environment"),
    "ipmpi.colours": (0, "foundation"),
    "ipmpi.communicator": (0, "foundation"),
    "ipmpi.errors": (0, "foundation"),
    "ipmpi.failuretext": (0, "foundation"),
    "ipmpi.folders": (0, "foundation"),
    "ipmpi.furl": (0, "foundation"),
    "ipmpi.ids": (0, "foundation"),
    "ipmpi.launchfolder": (0, "foundation"),
    "ipmpi.limits": (0, "foundation"),
    "ipmpi.locks": (0, "foundation"),
    "ipmpi.memory": (0, "foundation"),
    "ipmpi.namedigest": (0, "foundation"),
    "ipmpi.numerals": (0, "foundation"),
    "ipmpi.ownpath": (0, "foundation"),
    "ipmpi.parameters": (0, "foundation"),
    "ipmpi.cgroups": (0, "foundation"),
    "ipmpi.copying": (0, "foundation"),
    "ipmpi.crashreport": (0, "foundation"),
    "ipmpi.places": (0, "foundation"),
    "ipmpi.processid": (0, "foundation"),
    "ipmpi.quantities": (0, "foundation"),
    "ipmpi.ranges": (0, "foundation"),
    "ipmpi.byvalue": (1, "serialize"),
    "ipmpi.journal": (1, "journal"),
    "ipmpi.protocol": (1, "protocol"),
    "ipmpi.record": (0, "foundation"),
    "ipmpi.reference": (0, "foundation"),
    "ipmpi.plaindata": (1, "serialize"),
    "ipmpi.raised": (1, "serialize"),
    "ipmpi.returned": (1, "serialize"),
    "ipmpi.serialize": (1, "serialize"),
    "ipmpi.tls": (1, "tls"),
    "ipmpi.controller": (2, "controller"),
    "ipmpi.controller.commands": (2, "controller.commands"),
    "ipmpi.controller.farm": (2, "controller.farm"),
    "ipmpi.engine": (2, "engine"),
    "ipmpi.engine.capturedtext": (1, "engine"),
    "ipmpi.engine.farm": (2, "engine.farm"),
    "ipmpi.engine.rank": (2, "engine.rank"),
    "ipmpi.engine.session": (2, "engine.session"),
    "ipmpi.engine.agent.batches": (3, "engine.agent"),
    "ipmpi.engine.agent.itembook": (3, "engine.agent"),
    "ipmpi.engine.mpi": (3, "engine.mpi"),
    "ipmpi.engine.rank.interrupts": (3, "engine.rank"),
    "ipmpi.engine.rank.items": (3, "engine.rank"),
    "ipmpi.engine.rank.lifeline": (3, "engine.rank"),
    "ipmpi.engine.rank.gangmember": (3, "engine.rank"),
    "ipmpi.controller.lossnotices": (3, "controller"),
    "ipmpi.controller.restarts": (3, "controller"),
    "ipmpi.controller.onloss": (3, "controller"),
    "ipmpi.controller.enginememory": (3, "controller"),
    "ipmpi.controller.clientresults": (3, "controller"),
    "ipmpi.controller.keptgroups": (3, "controller"),
    "ipmpi.controller.unwrittenends": (3, "controller"),
    "ipmpi.controller.taskjournal": (3, "controller"),
    "ipmpi.controller.namedtasks": (3, "controller"),
    "ipmpi.controller.nojournal": (3, "controller"),
    "ipmpi.controller.returning": (3, "controller"),
    "ipmpi.transport": (3, "transport"),
    "ipmpi.transport.dial": (3, "transport.dial"),
    "ipmpi.transport.ssh": (3, "transport.ssh"),
    "ipmpi.client": (4, "client"),
    "ipmpi.client.cache": (4, "client.cache"),
    "ipmpi.client.display": (4, "client.display"),
    "ipmpi.client.engines": (4, "client.engines"),
    "ipmpi.client.pools": (4, "client.pools"),
    "ipmpi.client.session": (4, "client.session"),
    "ipmpi.client.tasks": (4, "client.tasks"),
    "ipmpi.controller.clienthistory": (4, "controller"),
    "ipmpi.controller.clientmessages": (4, "controller"),
    "ipmpi.controller.comeback": (4, "controller"),
    "ipmpi.controller.flushtimer": (4, "controller"),
    "ipmpi.controller.forwarding": (4, "controller"),
    "ipmpi.controller.admission": (4, "controller"),
    "ipmpi.controller.entry": (4, "controller"),
    "ipmpi.controller.inquiries": (4, "controller"),
    "ipmpi.controller.interruptions": (4, "controller"),
    "ipmpi.controller.lanes": (4, "controller"),
    "ipmpi.controller.restoring": (4, "controller"),
    "ipmpi.controller.service": (4, "controller"),
    "ipmpi.controller.sessions": (4, "controller"),
    "ipmpi.controller.stalled": (4, "controller"),
    "ipmpi.controller.watches": (4, "controller"),
    "ipmpi.controller.whereabouts": (4, "controller"),
    "ipmpi.engine.agent": (4, "engine.agent"),
    "ipmpi.engine.rank.largeanswers": (4, "engine.rank"),
    "ipmpi.engine.rank.remotedebugger": (4, "engine.rank"),
    "ipmpi.engine.rank.rank": (4, "engine.rank"),
    "ipmpi.ipython": (4, "ipython"),
    "ipmpi.steering": (4, "steering"),
    "ipmpi.jobscripts": (4, "launch"),
    "ipmpi.launch": (4, "launch"),
    "ipmpi.launch.batch": (4, "launch.batch"),
    "ipmpi.launch.cluster": (4, "launch.cluster"),
    "ipmpi.launch.doctor": (4, "launch.doctor"),
    "ipmpi.launch.processes": (4, "launch.processes"),
    "ipmpi.native": (5, "native"),
    "ipmpi.native.programmemory": (1, "native"),
    "ipmpi.native.samempi": (1, "native"),
    "ipmpi.bench": (5, "bench"),
    "ipmpi.cli": (5, "cli"),
    "ipmpi.cluster": (5, "cluster"),
}
# Pairs of groups in one layer of which the first may import the second.
NEIGHBOURS = {
    *(("bench", other) for other in ("cluster", "cli")),
    ("environment", "foundation"),
    *(("ipython", f"client.{room}") for room in ("display", "session", "engines", "tasks")),
    *(("client", f"client.{room}") for room in ("display", "session", "engines", "tasks", "pools")),
    *((f"client.{room}", "client.session") for room in ("cache", "engines", "tasks", "pools")),
    ("client.tasks", "client.cache"),
    *((f"client.{room}", "client.display") for room in ("session", "engines", "tasks", "pools")),
    ("client.pools", "client.tasks"),
    *((f"controller.{room}", "controller") for room in ("commands", "farm")),
    *((f"engine.{room}", "engine.session") for room in ("rank", "farm")),
    ("engine.mpi", "engine.rank"),
    *(("steering", f"engine.{room}") for room in ("agent", "rank")),
    *((f"launch.{room}", "launch.processes") for room in ("batch", "cluster", "doctor")),
    *((f"launch.{room}", "launch.batch") for room in ("cluster", "doctor")),
    ("launch.doctor", "launch.cluster"),
    *((f"transport.{room}", "transport") for room in ("dial", "ssh")),
    ("transport.ssh", "transport.dial"),
}
# Pairs of groups of which the first may not import the second, although its layer is higher.
STRANGERS = {("engine.agent", "engine.mpi"), ("engine.rank", "engine.mpi")}

# Library -> the only modules or packages that may import it.
ONLY: dict[str, tuple[str, ...]] = {
    # What the machine can do without ipmpi is measured with sockets of its own.
    "socket": ("ipmpi.transport", "ipmpi.bench.limits", "ipmpi.bench.otherend"),
    "select": ("ipmpi.transport",),
    "selectors": ("ipmpi.launch.cluster.cluster",),  # the latter reads pipes of processes, no network
    "asyncio": ("ipmpi.client.session.awaiting",),  # a result can be awaited in the user's own loop
    "OpenSSL": ("ipmpi.tls",),
    "cryptography": ("ipmpi.tls",),
    "sqlite3": ("ipmpi.journal.store", "ipmpi.client.cache"),
    # mpi_probe is a program of its own, samempi runs in one that has started MPI.
    "mpi4py": (
        *("ipmpi.engine.mpi.world", "ipmpi.engine.mpi.joined", "ipmpi.launch.doctor.mpi_probe"),
        *("ipmpi.native.samempi", "ipmpi.bench.pingpong"),
    ),
}
# Package -> what none of its modules may load, directly or through others.
NEVER: dict[str, tuple[str, ...]] = {
    "ipmpi.controller": ("pickle", "cloudpickle", "marshal", "shelve", "ipmpi.serialize", "mpi4py"),
    "ipmpi.journal": ("pickle", "cloudpickle", "marshal", "shelve", "ipmpi.serialize", "mpi4py", "threading"),
    "ipmpi.steering": ("OpenSSL", "cryptography", "ipmpi.tls"),
    "ipmpi.protocol": ("pickle", "cloudpickle", "marshal", "shelve", "ssl", "threading", "time"),
}
# Libraries that may be imported inside a function: they may be absent, or are slow to load.
OPTIONAL = {
    *("mpi4py", "numpy", "cloudpickle", "IPython", "tqdm", "rich", "matplotlib", "tblib", "psutil", "jinja2"),
    *("asyncio", "ctypes", "json", "pprint", "joblib", "tomllib", "shtab", "PIL", "h5py", "xarray"),
}
# Modules of ours that are loaded only when needed, and by whom: only the agent of a node needs OpenSSL, and what
# ranks load at their start is counted in tests/integration/test_real_startup.py.
DEFERRED = {
    ("ipmpi.cli.ipengine", "ipmpi.engine.agent.nodeagent"),
    ("ipmpi.cli.ipengine", "ipmpi.engine.agent.agentstart"),  # one rank of a node starts the agent
    ("ipmpi.cli.argtypes", "ipmpi.furl"),
    ("ipmpi.cli.ipcontroller", "ipmpi.launch.cluster.defaultfurls"),
    ("ipmpi.cli.ipengine", "ipmpi.cli.askjob"),
    ("ipmpi.engine.mpi.world", "ipmpi.engine.mpi.comm"),
    ("ipmpi.engine.session.debugging", "ipmpi.engine.session.enginedebugger"),  # it loads pdb
    ("ipmpi.engine.mpi.world", "ipmpi.engine.mpi.setcomm"),
    ("ipmpi.engine.session.console", "ipmpi.engine.session.ipythonlines"),  # slow patterns, for lines with %
    ("ipmpi.engine.session.namespace", "ipmpi.engine.session.completions"),  # it loads inspect, for a key press
    ("ipmpi.engine.session.namespace", "ipmpi.engine.session.descriptions"),  # it loads inspect, for a question
    ("ipmpi.engine.session.ipythonlines", "ipmpi.engine.session.ipythonshell"),  # it loads IPython
    ("ipmpi.client.tasks.farminterfaces", "ipmpi.client.pools.executor"),  # few programs need these two
    ("ipmpi.client.tasks.farminterfaces", "ipmpi.client.pools.pool"),
}

FILE_LINES = 500
FUNCTION_LINES = 60
FORBIDDEN_NAMES = {"util", "utils", "helper", "helpers", "misc", "common"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted((ROOT / "ipmpi").rglob("*.py"))}
TREES = {name: ast.parse(path.read_text("utf-8"), str(path)) for name, path in SOURCES.items()}
each_module = pytest.mark.parametrize("name", SOURCES)


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def place(name: str) -> tuple[int, str]:
    """The layer and group of a module."""
    return LAYERS[max((known for known in LAYERS if is_within(name, known)), key=len)]


def imported_names(node: ast.Import | ast.ImportFrom, importer: str) -> Iterator[str]:
    """Full names of the modules that one statement loads."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = node.module or ""
    if node.level:
        parts = importer.split(".")
        is_package = SOURCES[importer].name == "__init__.py"
        parents = parts[: len(parts) - node.level + is_package]
        base = ".".join([*parents, *([node.module] if node.module else [])])
    for alias in node.names:
        full = f"{base}.{alias.name}"
        yield full if full in SOURCES else base


def imports(name: str) -> set[str]:
    nodes = (node for node in ast.walk(TREES[name]) if isinstance(node, ast.Import | ast.ImportFrom))
    return {loaded for node in nodes for loaded in imported_names(node, name)}


def reachable(name: str) -> dict[str, str]:
    """Everything that loading a module loads, and which module of ours asks for it."""
    found: dict[str, str] = {}
    todo = [name]
    while todo:
        importer = todo.pop()
        for loaded in imports(importer):
            if loaded not in found:
                found[loaded] = importer
                if loaded in SOURCES:
                    todo.append(loaded)
    return found


@each_module
def test_imports_run_downward(name: str) -> None:
    layer, group = place(name)
    wrong = []
    for loaded in imports(name):
        if not is_within(loaded, "ipmpi") or (name, loaded) in DEFERRED:
            continue
        other_layer, other_group = place(loaded)
        is_neighbour = other_layer == layer and (group == other_group or (group, other_group) in NEIGHBOURS)
        if (other_layer >= layer and not is_neighbour) or (group, other_group) in STRANGERS:
            wrong.append(f"{loaded} (L{other_layer})")
    assert not wrong, f"{name} (L{layer}) imports {', '.join(sorted(wrong))}"


def in_circles(needs: dict[str, set[str]]) -> set[str]:
    """The names that need themselves through others, and those between two circles."""
    left = dict(needs)
    while True:
        needed = {other for name in left for other in left[name] if other != name}
        ends = {name for name, others in left.items() if name not in needed or not others & left.keys()}
        if not ends:
            return set(left)
        left = {name: others for name, others in left.items() if name not in ends}


def test_no_rooms_know_each_other_in_a_circle() -> None:
    groups = {group for pair in NEIGHBOURS for group in pair}
    needs = {group: {other for first, other in NEIGHBOURS if first == group} for group in groups}
    assert not in_circles(needs)


def test_no_files_import_each_other_in_a_circle() -> None:
    """Imports in functions and for type checkers alone count too: to understand one file takes the others."""
    needs = {name: imports(name) & SOURCES.keys() for name in SOURCES}
    circles = sorted(in_circles(needs))
    assert not circles, f"each of these needs another one of them: {', '.join(circles)}"


@each_module
def test_libraries_stay_where_they_belong(name: str) -> None:
    for loaded in imports(name):
        owners = ONLY.get(loaded.partition(".")[0])
        assert owners is None or any(is_within(name, owner) for owner in owners), (
            f"{name} imports {loaded}: only {' and '.join(owners)} may"
        )


@pytest.mark.parametrize("name", [n for n in SOURCES if any(is_within(n, package) for package in NEVER)])
def test_nothing_forbidden_is_reached(name: str) -> None:
    banned = next(names for package, names in NEVER.items() if is_within(name, package))
    for loaded, importer in reachable(name).items():
        assert not any(is_within(loaded, ban) for ban in banned), f"{name} reaches {loaded}, through {importer}"


@each_module
def test_imports_stand_at_the_top(name: str) -> None:
    functions = (n for n in ast.walk(TREES[name]) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    for function in functions:
        for node in ast.walk(function):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {n for n in imported_names(node, name) if (name, n) not in DEFERRED}
                tops = {loaded.partition(".")[0] for loaded in names}
                assert tops <= OPTIONAL, f"{name}:{node.lineno}: import of {', '.join(tops)} in {function.name}()"


@each_module
def test_files_and_functions_are_short(name: str) -> None:
    lines = len(SOURCES[name].read_text("utf-8").splitlines())
    assert lines <= FILE_LINES, f"{name} has {lines} lines"
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= FUNCTION_LINES, f"{name}.{node.name} has {length} lines"


@each_module
def test_modules_have_a_purpose(name: str) -> None:
    assert name.rpartition(".")[2] not in FORBIDDEN_NAMES
    assert ast.get_docstring(TREES[name]), f"{name} does not say what it is for"


def test_the_table_names_no_vanished_module() -> None:
    packages = {"ipmpi.jobscripts"}
    gone = [n for n in LAYERS if n not in SOURCES and n not in packages]
    assert not gone, f"remove from LAYERS: {gone}"

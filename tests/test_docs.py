"""The documentation does what it says: its sessions run, its commands parse, and nothing public is left out."""

from __future__ import annotations

import argparse
import doctest
import html
import importlib.util
import inspect
import json
import os
import pkgutil
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

from ipmpi import client, errors
from ipmpi.cli.ipcluster import HIDDEN, split
from ipmpi.client import MultiEngineClient
from ipmpi.launch.processes.mpi import find_mpi

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.rst",
    *sorted(path for path in DOCS.rglob("*.rst") if "_build" not in path.parts and path.name != "changelog.rst"),
]
WITH_SESSIONS = [page for page in PAGES if ">>> " in page.read_text("utf-8")]
OLD_NAMES = "from-ipython-kernel.rst"
"""Its left columns are command lines of other programs."""

Need = Callable[[str, object], None]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_tables", DOCS / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def parsers() -> dict[str, argparse.ArgumentParser]:
    found: dict[str, argparse.ArgumentParser] = tables().parsers()
    return found


# --- Python sessions -------------------------------------------------------------------------------------


def with_blank_lines_marked(text: str) -> str:
    """Blank lines inside the output of an indented session, as doctest wants to be told of them."""
    lines = text.split("\n")
    in_output = ""
    for number, line in enumerate(lines):
        margin = line[: len(line) - len(line.lstrip())]
        if line.strip().startswith((">>> ", "... ")):
            in_output = margin
        elif line.strip():
            in_output = in_output if margin == in_output else ""
        elif in_output:
            later = next((other for other in lines[number + 1 :] if other.strip()), "")
            if later.startswith(in_output) and not later.strip().startswith(">>> "):
                lines[number] = in_output + "<BLANKLINE>"
    return "\n".join(lines)


@pytest.fixture(scope="module")
def four_engines(tmp_path_factory: pytest.TempPathFactory, need: Need) -> Iterator[Path]:
    """The folder of a cluster that was started as the pages say."""
    need("no mpiexec", find_mpi())
    folder = tmp_path_factory.mktemp("ipython")
    local = ["--client-ip", "127.0.0.1", "--engine-ip", "127.0.0.1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ipmpi.cli.ipcluster", "-n", "4", *local],
        env={**os.environ, "IPYTHONDIR": str(folder), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        said = ""
        while not said.endswith(f"kill -INT {process.pid}\n"):
            line = process.stdout.readline()
            assert line, said
            said += line
        try:
            yield folder
        finally:
            process.send_signal(signal.SIGINT)
            rest = process.stdout.read()
    assert process.returncode == 0, rest
    assert "OK: All processes cleaned up." in rest


@pytest.mark.slow
@pytest.mark.mpi
@pytest.mark.parametrize("page", WITH_SESSIONS, ids=named)
def test_sessions_run_as_shown(
    page: Path, four_engines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, need: Need
) -> None:
    if "import matplotlib" in page.read_text("utf-8"):
        need("no matplotlib; 'make docs' installs it", importlib.util.find_spec("matplotlib"))
        monkeypatch.setenv("MPLBACKEND", "Agg")
    for library, used in (("h5py", ".save(path"), ("xarray", ".to_xarray(")):
        if used in page.read_text("utf-8"):
            need(f"no {library}; pip install {library}", importlib.util.find_spec(library))
    monkeypatch.setenv("IPYTHONDIR", str(four_engines))
    # What a page has its reader save in the current folder is there.
    for program in re.findall(r"literalinclude:: (\S+\.py)$", page.read_text("utf-8"), re.MULTILINE):
        shutil.copy(page.parent / program, tmp_path)
    monkeypatch.chdir(tmp_path)
    with MultiEngineClient() as mec:
        mec.reset()
    text = with_blank_lines_marked(page.read_text("utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    session = doctest.DocTestParser().get_doctest(text, names, page.name, str(page), 0)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    try:
        result = runner.run(session, out=said.append, clear_globs=False)
    finally:
        for value in session.globs.values():
            if isinstance(value, (client.MultiEngineClient, client.TaskClient)):
                value.close()
    assert result.attempted
    assert not result.failed, "".join(said)


def test_blank_lines_are_marked_in_output_only() -> None:
    text = "Text::\n\n    >>> f()\n    a\n\n    b\n\n    >>> g()\n\nMore.\n\n>>> h()\nc\n\nEnd.\n"
    marked = with_blank_lines_marked(text)
    assert marked == text.replace("    a\n\n", "    a\n    <BLANKLINE>\n")


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_no_marks_of_doctest_are_shown(page: Path) -> None:
    """Sphinx takes its flags away, not this one."""
    assert "<BLANKLINE>" not in page.read_text("utf-8")


# --- Command lines ---------------------------------------------------------------------------------------

COMMANDS = ("ipcluster", "ipcontroller", "ipengine", "ipmpi-steer-config")
COMMAND = re.compile(rf"^(?:.*\s)?({'|'.join(COMMANDS)})(?:\s|$)")
SAME = {"ipcluster mpiexec", "ipcluster mpirun", "ipcluster pbs"}
"""Commands that take what another one takes."""
LITERAL = re.compile(r"``([^`]+)``")


def shown_lines(page: Path) -> list[str]:
    """Indented lines that run one of the commands."""
    found = []
    for line in page.read_text("utf-8").split("\n"):
        text = line.strip()
        prompted = text.startswith("$ ")
        plain = line.startswith("    ") and text.split(" ")[0] in ("ipcluster", "ipcontroller", "mpirun")
        if (prompted or plain) and COMMAND.match(text):
            found.append(text.removeprefix("$ "))
    return found


def arguments(line: str) -> tuple[str, list[str]]:
    """The last of our commands in a line, and what follows it; other launchers' options come before it."""
    words = shlex.split(line, comments=True)
    at = max(number for number, word in enumerate(words) if word in COMMANDS)
    return full_command(words[at], words[at + 1 :])


def full_command(name: str, rest: list[str]) -> tuple[str, list[str]]:
    """A command with its sub-command, and the arguments of these."""
    if name != "ipcluster":
        return name, rest
    command, rest = split(rest)
    return f"{name} {command}", rest


SHOWN = [(page, line) for page in PAGES for line in shown_lines(page)]


@pytest.mark.parametrize(("page", "line"), SHOWN, ids=[f"{named(page)}: {line}" for page, line in SHOWN])
def test_command_lines_parse(page: Path, line: str, parsers: dict[str, argparse.ArgumentParser]) -> None:
    command, words = arguments(line)
    parsers[command].parse_args(words)


def test_the_pages_show_all_commands(parsers: dict[str, argparse.ArgumentParser]) -> None:
    assert {arguments(line)[0] for _, line in SHOWN} >= set(parsers) - SAME


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != OLD_NAMES], ids=named)
def test_options_in_the_text_exist(page: Path, parsers: dict[str, argparse.ArgumentParser]) -> None:
    for literal in LITERAL.findall(page.read_text("utf-8")):
        found = COMMAND.match(literal)
        if found is None:
            continue
        after = literal[found.end(1) :]
        command, _ = full_command(found[1], after.split())
        if command.split()[-1] in (*HIDDEN, "COMMAND", "KIND", "..."):
            continue
        known = {name for action in parsers[command]._actions for name in action.option_strings}
        unknown = set(re.findall(r"(?<!\S)--[a-z-]+", after)) - known
        assert not unknown, f"{literal}: {found[1]} has no {', '.join(unknown)}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_make_targets_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    in_text, in_blocks = r"``make ([a-z]+)[^`]*``", r"^ {4,}(?:\$ )?make ([a-z]+)$"
    wanted = {*re.findall(in_text, text), *re.findall(in_blocks, text, re.MULTILINE)}
    there = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert wanted <= there


def test_every_command_and_option_is_in_the_reference(parsers: dict[str, argparse.ArgumentParser]) -> None:
    scripts = re.findall(r'"([\w-]+) = ipmpi\.cli\.\w+:main"', (ROOT / "setup.py").read_text("utf-8"))
    page = (DOCS / "reference" / "commands.rst").read_text("utf-8")
    assert set(scripts) == {name.split()[0] for name in parsers}
    for name, parser in parsers.items():
        if name not in SAME:
            assert f"options-{name.replace(' ', '-')}.inc" in page
        table = tables().options(parser)
        for action in parser._actions:
            for option in action.option_strings:
                assert (f"``{option}" in table) == (action.help != argparse.SUPPRESS)


# --- Python names ----------------------------------------------------------------------------------------


def reference() -> str:
    return "\n".join(page.read_text("utf-8") for page in (DOCS / "reference").glob("*.rst"))


@pytest.mark.parametrize("name", client.__all__)
def test_every_public_name_is_in_the_reference(name: str) -> None:
    thing = getattr(client, name)
    assert inspect.getdoc(thing)
    if thing.__module__.startswith("ipmpi."):
        kind = "class" if isinstance(thing, type) else "function"
        assert f".. auto{kind}:: ipmpi.client.{name}\n" in reference()
    else:
        assert f"``{name}``" in reference(), "what is Python's own is at least named"


ERRORS = [
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.KernelError) and kind.__module__ == errors.__name__
]


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_is_documented_and_in_the_tree(name: str) -> None:
    """Sphinx takes all classes that have a docstring."""
    assert ".. automodule:: ipmpi.errors\n   :members:\n" in reference()
    assert vars(getattr(errors, name)).get("__doc__")
    assert re.search(rf"\b{name}\b", tables().error_tree())


IMPORT = re.compile(r"\bfrom (ipmpi[\w.]*) import (\w+)|``(ipmpi\.\w+\.[\w.]*\w)``")
MODULE = re.compile(r"``((?:cli|client|controller|engine|launch|protocol|transport)\.[\w.]+\w)``")


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_what_the_pages_import_exists(page: Path) -> None:
    """In sessions, in code that is only shown, and in the text."""
    text = page.read_text("utf-8")
    for module, name, whole in IMPORT.findall(text):
        pkgutil.resolve_name(whole or f"{module}.{name}")
    if page.name == "architecture.rst":  # which leaves out the name of the package
        for module in MODULE.findall(text):
            pkgutil.resolve_name(f"ipmpi.{module}")


TEST = re.compile(r"``(tests/[\w/]+\.py)(?:::(\w+))?``")
SOURCE = re.compile(r"``(?:ipmpi/)?([\w/]+\.py)``")
OLD = DOCS / "decisions"
"""Pages of the time in which each decision was made."""


@pytest.mark.parametrize("page", [page for page in PAGES if OLD not in page.parents], ids=named)
def test_files_and_tests_that_the_pages_name_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for path, test in TEST.findall(text):
        assert f"def {test}(" in (ROOT / path).read_text("utf-8") if test else (ROOT / path).exists(), (path, test)
    for path in SOURCE.findall(text):
        if "/" in path:
            assert any((folder / path).exists() for folder in (ROOT, ROOT / "ipmpi", DOCS)), path
        elif page.name == "architecture.rst":  # elsewhere it may be a reader's own file
            assert any((ROOT / "ipmpi").rglob(path)), path


# --- Examples in files -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_furl_of_the_interface_in_the_howto(tmp_path: Path) -> None:
    """The example of howto/interface.rst, with a controller and an engine."""
    folder = DOCS / "howto"
    environ = {**os.environ, "IPYTHONDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    local = ["--client-ip", "127.0.0.1", "--engine-ip", "127.0.0.1"]
    reader, writer = os.pipe()
    log = (tmp_path / "log").open("wb")
    controller = subprocess.Popen(
        [sys.executable, "-m", "ipmpi.cli.ipcontroller", "--interface", "reader_interface:READER", *local,
         "--ready-fd", str(writer)],
        cwd=folder, env=environ, stdout=log, stderr=log, pass_fds=[writer],
    )  # fmt: skip
    os.close(writer)
    running = [controller]
    try:
        with open(reader) as news:
            files = json.loads(news.readline())
            assert files["reader_furl_file"] == str(tmp_path / "security" / "ipcontroller-reader.furl")
            engine = [sys.executable, "-m", "ipmpi.cli.ipengine", "--mpi", "none"]
            running.append(subprocess.Popen(engine, env=environ, stdout=log, stderr=log))
            assert json.loads(news.readline()) == {"engines": 1}
            done = subprocess.run(
                [sys.executable, str(folder / "reader_client.py")],
                env=environ, capture_output=True, text=True, timeout=30, check=False,
            )  # fmt: skip
            assert (done.returncode, done.stdout) == (0, "[0] [['id', 'mpi']]\n"), done.stderr
            more = (
                (folder / "reader_client.py")
                .read_text("utf-8")
                .replace("engines.keys()", "engines.push({'a': 1})")
            )
            refused = subprocess.run(
                [sys.executable, "-c", more], env=environ, capture_output=True, text=True, timeout=30, check=False
            )
            assert "SecurityError: the 'reader' interface does not permit this Command" in refused.stderr
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(15)
        log.close()


SHOWN_IN = {
    "reference/client": ["ipmpi.client.EngineView.interrupt"],
    "tutorial": [
        "_images/heat-light.png",
        "_images/heat-dark.png",
        "https://docs.python.org/3/library/concurrent.futures.html#concurrent.futures.Future",
    ],
    "howto/arrays": ["../_images/arrays-light.png", "../_images/arrays-dark.png"],
    "output": [
        "[0-1] Traceback (most recent call last):",
        "printed by C",
        "residual = 1.0e-06",
        "interrupting [0-3]. Ctrl-C again",
        "lines left out: %pxresult --all shows all",
    ],
    "protocol": ["SubmitTasks"],
    "notebooks/spmd": ['class="cell_output', '<img alt="../_images/', "this is printed by one rank only"],
    "notebooks/farm": ["succeeded at attempt 3", '<img alt="../_images/'],
    "notebooks/heat": ["step 200: hottest", '<img alt="../_images/'],
    "index": ["<svg", "ipmpi-drawing"],
    "architecture": ["<svg", "ipmpi-drawing"],
}
"""What is in a page only if what makes it has worked: autodoc, figures, recorded sessions, notebooks, drawings,
links to other projects. Texts are compared without the tags of their colours."""

# --- The whole -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_sphinx_has_nothing_to_complain_about(tmp_path: Path, need: Need) -> None:
    for name in ("sphinx", "myst_nb", "nbclient"):
        need(f"no {name}; 'make docs' installs it", importlib.util.find_spec(name))
    need("no IPython, whose magics are documented", importlib.util.find_spec("IPython"))
    need("no mpiexec, for figures, notebooks and recorded sessions", find_mpi())
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", str(tmp_path / "trees"),
         str(DOCS), str(tmp_path / "html")],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    built = {name: (tmp_path / "html" / f"{name}.html").read_text("utf-8") for name in SHOWN_IN}
    for name, parts in SHOWN_IN.items():
        text = html.unescape(re.sub(r"</?span[^>]*>", "", built[name]))
        assert not [part for part in parts if part not in text], name


def test_the_readme_renders_without_sphinx(need: Need) -> None:
    """As it is shown beside the sources, where its picture and links are paths in the repository."""
    need("no docutils; 'make docs' installs it", importlib.util.find_spec("docutils"))
    from docutils.core import publish_doctree
    from docutils.nodes import image, reference

    text = (ROOT / "README.rst").read_text("utf-8")
    page = publish_doctree(text, settings_overrides={"halt_level": 2, "report_level": 2})
    pictures = [each["uri"] for each in page.findall(image)]
    links = [each["refuri"] for each in page.findall(reference) if "refuri" in each]
    assert pictures
    assert links
    assert not [path for path in (*pictures, *links) if not (ROOT / path).is_file()]


DRAWINGS = sorted((DOCS / "pictures").glob("*.svg"))


@pytest.mark.parametrize("drawing", DRAWINGS, ids=named)
def test_drawings_have_colours_for_light_and_dark_pages(drawing: Path) -> None:
    """Alone they follow the system; in a page they follow its theme, by the style sheet."""
    text = drawing.read_text("utf-8")
    ElementTree.fromstring(text)
    used = set(re.findall(r"var\((--\w+)\)", text))
    light, dark = text.split("@media (prefers-color-scheme: dark)")
    sheet = (DOCS / "_static" / "ipmpi.css").read_text("utf-8")
    rules = re.findall(r'html\[data-theme="(?:light|dark)"\] \.ipmpi-drawing \{(.*?)\}', sheet, re.DOTALL)
    assert used
    assert len(rules) == 2
    for palette in (light, dark.split("</style>")[0], *rules):
        assert used <= set(re.findall(r"(--\w+):", palette))

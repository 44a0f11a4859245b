"""What is said of furl files and of the addresses in them; the files are real."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ipmpi import furl
from ipmpi.furl import Furl
from ipmpi.launch.doctor.check_files import check_folder, check_furl_files
from ipmpi.launch.doctor.check_network import check_hints
from ipmpi.launch.doctor.diagnostics import Diagnostic, Level
from ipmpi.launch.doctor.facts import FolderFacts
from ipmpi.launch.doctor.gather import look_at_folder, look_at_furl_file, look_at_furl_files, token_in
from ipmpi.transport.dial.reach import Hint

ME = os.geteuid()
ONE, OTHER = b"1" * 32, b"2" * 32


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "security"
    for role, name in furl.FILES.items():
        key = OTHER if role == "engine" else ONE
        furl.save(path / name, Furl.create(key, (("127.0.0.1", 10105),), role))
    return path


def judged(folder: Path) -> list[Diagnostic]:
    return check_furl_files(look_at_furl_files(folder), ME)


def test_furl_files_as_a_controller_leaves_them(folder: Path) -> None:
    (diagnostic,) = judged(folder)
    assert (diagnostic.check, diagnostic.level) == ("furl-permissions", Level.OK)
    assert diagnostic.text == "Only you can read the furl files (engine, mec, tc, monitor)."


def readable(path: Path) -> None:
    path.chmod(0o644)


def linked(path: Path) -> None:
    target = path.rename(path.with_suffix(".real"))
    path.symlink_to(target)


def twice(path: Path) -> None:
    os.link(path, path.with_suffix(".other"))


def cut_off(path: Path) -> None:
    path.write_text(path.read_text()[:60])


def exchanged(path: Path) -> None:
    path.write_text(path.with_name("ipcontroller-tc.furl").read_text())


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "check", "text", "fix"),
    [
        (readable, "furl-permissions", "mode 0644", "chmod 600 "),
        (linked, "furl-file", "is a symbolic link", "cp --remove-destination"),
        (twice, "furl-permissions", "has 2 names", "Delete it"),
        (cut_off, "furl-file", "ends inside the certificate hash", "Copy the whole file again"),
        (exchanged, "furl-file", "holds a furl for TaskClient", "Copy the whole file"),
        (a_folder, "furl-file", "is no file", "Remove it"),
    ],
)
def test_a_furl_file_that_is_spoilt(
    folder: Path, spoil: Callable[[Path], None], check: str, text: str, fix: str
) -> None:
    path = folder / "ipcontroller-mec.furl"
    secret = path.read_text().strip().rpartition("/")[2]
    spoil(path)
    wrong = [diagnostic for diagnostic in judged(folder) if diagnostic.level is Level.PROBLEM]
    assert [diagnostic.check for diagnostic in wrong] == [check]
    assert str(path) in wrong[0].text
    assert text in wrong[0].text
    assert fix in wrong[0].fix
    assert secret not in repr(judged(folder)) + repr(look_at_furl_files(folder))


def test_a_furl_file_of_somebody_else(folder: Path) -> None:
    found = check_furl_files(look_at_furl_files(folder), ME + 1)
    assert {diagnostic.check for diagnostic in found} == {"furl-permissions"}
    assert f"belongs to user {ME}, you are user {ME + 1}" in found[0].text


def test_furl_files_of_two_controllers(folder: Path) -> None:
    furl.save(folder / "ipcontroller-tc.furl", Furl.create(OTHER, (("127.0.0.1", 10105),), "tc"))
    diagnostic = next(diagnostic for diagnostic in judged(folder) if diagnostic.level is not Level.OK)
    assert (diagnostic.check, diagnostic.level) == ("furl-controllers", Level.WARNING)
    assert "2 different controllers" in diagnostic.text


def test_no_furl_files(tmp_path: Path) -> None:
    (diagnostic,) = judged(tmp_path)
    assert diagnostic.level is Level.NOTE
    assert "ipcluster -n 4" in diagnostic.fix
    assert look_at_furl_file(tmp_path / "x", "mec").kind == "missing"


def test_the_folder(folder: Path) -> None:
    def check() -> tuple[str, Level]:
        (diagnostic,) = check_folder(look_at_folder(folder), ME)
        assert diagnostic.level is Level.OK or diagnostic.fix
        return diagnostic.text, diagnostic.level

    assert check() == (f"Only you can enter the folder {folder}.", Level.OK)
    assert list(folder.glob(".ipmpi*")) == []
    folder.chmod(0o755)
    assert check() == (f"Others may look into the folder {folder} (mode 0755).", Level.WARNING)
    folder.chmod(0o777)
    assert check() == (f"Others can exchange files in the folder {folder} (mode 0777).", Level.PROBLEM)
    folder = folder.rename(folder.with_name("elsewhere"))
    (diagnostic,) = check_folder(look_at_folder(folder.with_name("security")), ME)
    assert diagnostic.level is Level.OK
    folder.with_name("security").symlink_to(folder)
    (diagnostic,) = check_folder(look_at_folder(folder.with_name("security")), ME)
    assert (diagnostic.level, "is no folder" in diagnostic.text) == (Level.PROBLEM, True)


def test_folders_that_cannot_be_used() -> None:
    (diagnostic,) = check_folder(
        FolderFacts("/home/u/.ipython/security", "folder", 0o700, ME, "Disk quota exceeded"), ME
    )
    assert diagnostic.level is Level.PROBLEM
    assert "Disk quota exceeded" in diagnostic.text
    (diagnostic,) = check_folder(FolderFacts("/ro/security", "missing", error="nothing can be written in /ro"), ME)
    assert "IPYTHONDIR" in diagnostic.fix
    (diagnostic,) = check_folder(FolderFacts("/home/u/.ipython/security", "folder", 0o700, ME + 1), ME)
    assert f"belongs to user {ME + 1}" in diagnostic.text


def test_a_token_lives_as_long_as_it_is_needed(tmp_path: Path) -> None:
    with token_in(tmp_path) as (name, token):
        assert (tmp_path / name).read_text() == token
        assert (tmp_path / name).stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == []
    with token_in(tmp_path / "nowhere") as found:
        assert found == ("", "")


# --- addresses ---------------------------------------------------------------------------------------------

REACHED = Hint("10.0.0.1", 10105, "reached", "", 0.002)
REFUSED = Hint("10.0.0.1", 10105, "refused", "Connection refused")
SILENT = Hint("10.0.0.2", 10105, "timeout", "no answer in 5 s")
NAMELESS = Hint("login.nowhere", 10105, "name", "its name cannot be looked up")


def test_an_address_that_answers() -> None:
    (diagnostic,) = check_hints("mec", [REACHED], False, {})
    assert diagnostic.level is Level.OK
    assert diagnostic.text == "10.0.0.1:10105 answers in 2 ms, with the certificate of the mec furl."


def test_others_do_no_harm() -> None:
    found = check_hints("mec", [SILENT, REACHED], False, {})
    assert [diagnostic.level for diagnostic in found] == [Level.OK, Level.NOTE]
    assert "ipcontroller --client-location 10.0.0.1" in found[1].fix


def test_a_controller_that_has_ended_is_a_problem_only_if_it_was_asked_for() -> None:
    (diagnostic,) = check_hints("mec", [SILENT, REFUSED], False, {})
    assert diagnostic.level is Level.WARNING
    assert "10.0.0.1:10105: Connection refused" in diagnostic.text
    (diagnostic,) = check_hints("mec", [REFUSED], True, {})
    assert diagnostic.level is Level.PROBLEM


def test_nothing_can_be_reached() -> None:
    (diagnostic,) = check_hints("engine", [SILENT, NAMELESS], False, {"https_proxy": "http://u:pw@proxy:3128"})
    assert diagnostic.level is Level.PROBLEM
    assert "ipcontroller --engine-location HOST" in diagnostic.fix
    assert "A proxy is set here, in https_proxy." in diagnostic.fix
    assert "pw" not in diagnostic.fix
    (diagnostic,) = check_hints("mec", [NAMELESS], False, {})
    assert "a name that is known here" in diagnostic.fix


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("certificate", "Another controller than that of the mec furl"),
        ("tls", "Something answers that is no controller"),
        ("dates", "not valid now"),
    ],
)
def test_somebody_else_answers(stage: str, words: str) -> None:
    (diagnostic,) = check_hints("mec", [SILENT, REFUSED._replace(stage=stage, text="because")], False, {})
    assert diagnostic.level is Level.PROBLEM
    assert words in diagnostic.text


def test_engines_elsewhere_cannot_use_loopback() -> None:
    found = check_hints("engine", [REACHED._replace(host="127.0.0.1")], False, {})
    assert (found[1].check, found[1].level) == ("reach-elsewhere", Level.NOTE)
    assert len(check_hints("mec", [REACHED._replace(host="127.0.0.1")], False, {})) == 1

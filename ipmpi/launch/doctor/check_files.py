"""Check furl files and their folder (no I/O)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .diagnostics import Diagnostic, Table, always, first, note, ok, problem, warning
from .facts import FolderFacts, FurlFileFacts

AREA: Final = "Furl files"
_FOLDER, _FILE, _PERMISSIONS = "furl-folder", "furl-file", "furl-permissions"

_FOLDER_CHECKS: Final[Table] = (
    (lambda f: f.kind == "missing" and f.error, problem(
        AREA, _FOLDER, "The folder {path} is not there and cannot be made: {error}.",
        "Name a folder that can be written: export IPYTHONDIR=/scratch/$USER/ipython, for controller, engines and "
        "clients alike.")),
    (lambda f: f.kind == "missing", ok(
        AREA, _FOLDER, "The folder {path} is not there yet; a controller makes it.")),
    (lambda f: f.kind != "folder", problem(AREA, _FOLDER, "{path} is no folder.", "Remove it: rm {path}")),
    (lambda f: f.owner != f.user, problem(
        AREA, _FOLDER, "The folder {path} belongs to user {owner}, you are user {user}.",
        "Use a folder of your own: export IPYTHONDIR=FOLDER")),
    (lambda f: f.mode & 0o022, problem(
        AREA, _FOLDER, "Others can exchange files in the folder {path} (mode {mode:04o}).", "chmod 700 {path}")),
    (lambda f: f.error, problem(
        AREA, _FOLDER, "Nothing can be written in the folder {path}: {error}.",
        "Make room there, or use another folder: export IPYTHONDIR=FOLDER")),
    (lambda f: f.mode & 0o077, warning(
        AREA, _FOLDER, "Others may look into the folder {path} (mode {mode:04o}).", "chmod 700 {path}")),
    (always, ok(AREA, _FOLDER, "Only you can enter the folder {path}.")),
)  # fmt: skip

_FILE_CHECKS: Final[Table] = (
    (lambda f: f.kind == "missing", None),
    (lambda f: f.kind == "link", problem(
        AREA, _FILE, "{path} is a symbolic link, which is not followed.",
        "Put the file itself there: cp --remove-destination $(readlink -f {path}) {path}")),
    (lambda f: f.kind != "file", problem(
        AREA, _FILE, "{path} is no file.", "Remove it, and start the controller again.")),
    (lambda f: f.owner != f.user, problem(
        AREA, _PERMISSIONS, "{path} belongs to user {owner}, you are user {user}: it will not be used.",
        "Copy it to a file of your own, with mode 600.")),
    (lambda f: f.mode & 0o077, problem(
        AREA, _PERMISSIONS, "Others may read or change {path} (mode {mode:04o}): it will not be used.",
        "chmod 600 {path}; if somebody may have read it, start the controller anew with new furls")),
    (lambda f: f.names != 1, problem(
        AREA, _PERMISSIONS, "{path} has {names} names (hard links), so somebody else may have put it there.",
        "Delete it, and copy the furl file again.")),
    (lambda f: f.error or f.furl is None, problem(
        AREA, _FILE, "{path} cannot be used: {why}.",
        "Copy the whole file again from where the controller runs.")),
)  # fmt: skip


def check_folder(facts: FolderFacts, user: int) -> list[Diagnostic]:
    """Check the ``security`` folder: only its user may enter it."""
    return first(_FOLDER_CHECKS, **facts._asdict(), user=user)


def check_furl_file(facts: FurlFileFacts, user: int) -> list[Diagnostic]:
    """Check one furl file: everyone who can read it has the permissions of its role."""
    return first(_FILE_CHECKS, **vars(facts), user=user, why=facts.error or "it is empty")


def check_furl_files(files: Sequence[FurlFileFacts], user: int) -> list[Diagnostic]:
    """Check all furl files, and whether they belong to one controller."""
    there = [facts for facts in files if facts.kind != "missing"]
    if not there:
        text = "There are no furl files: no controller was started here, and none was copied from elsewhere."
        fix = (
            "Start a cluster (ipcluster -n 4). If the controller runs elsewhere, copy ipcontroller-mec.furl from "
            "there (mode 600)."
        )
        return [note(AREA, _FILE, text, fix)]
    checked = [(facts, check_furl_file(facts, user)) for facts in there]
    found = [diagnostic for _, said in checked for diagnostic in said]
    usable = [facts for facts, said in checked if not said]
    if not found:
        roles = ", ".join(facts.role for facts in usable)
        found.append(ok(AREA, _PERMISSIONS, f"Only you can read the furl files ({roles})."))
    return found + _one_controller(usable)


def _one_controller(usable: Sequence[FurlFileFacts]) -> list[Diagnostic]:
    controllers: dict[bytes, list[str]] = {}
    for facts in usable:
        # The engines' listener has a certificate of its own.
        if facts.furl is not None and facts.role != "engine":
            controllers.setdefault(facts.furl.fingerprint, []).append(facts.path)
    if len(controllers) <= 1:
        return []
    groups = "; ".join(" and ".join(paths) for paths in controllers.values())
    text = f"The furl files are of {len(controllers)} different controllers: {groups}."
    fix = "Those of a former controller can go: remove what is older, or copy the newer one's files again."
    return [warning(AREA, "furl-controllers", text, fix)]

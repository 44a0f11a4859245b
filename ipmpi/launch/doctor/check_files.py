"""Judge furl files and their folder (layer L4, no I/O)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .diagnostics import Diagnostic, note, ok, problem, warning
from .facts import FolderFacts, FurlFileFacts

AREA: Final = "Furl files"


def check_folder(facts: FolderFacts, user: int) -> list[Diagnostic]:
    """The ``security`` folder: only its user may enter it."""
    check = "furl-folder"
    path = facts.path
    if facts.kind == "missing":
        if facts.error:
            return [
                problem(AREA, check, f"The folder {path} is not there and cannot be made: {facts.error}.",
                        "Name a folder that can be written: export IPYTHONDIR=/scratch/$USER/ipython, for "
                        "controller, engines and clients alike.")
            ]  # fmt: skip
        return [ok(AREA, check, f"The folder {path} is not there yet; a controller makes it.")]
    if facts.kind != "folder":
        return [problem(AREA, check, f"{path} is no folder.", f"Remove it: rm {path}")]
    if facts.owner != user:
        text = f"The folder {path} belongs to user {facts.owner}, you are user {user}."
        return [problem(AREA, check, text, "Use a folder of your own: export IPYTHONDIR=FOLDER")]
    if facts.mode & 0o022:
        text = f"Others can exchange files in the folder {path} (mode {facts.mode:04o})."
        return [problem(AREA, check, text, f"chmod 700 {path}")]
    if facts.error:
        text = f"Nothing can be written in the folder {path}: {facts.error}."
        return [problem(AREA, check, text, "Make room there, or use another folder: export IPYTHONDIR=FOLDER")]
    if facts.mode & 0o077:
        text = f"Others may look into the folder {path} (mode {facts.mode:04o})."
        return [warning(AREA, check, text, f"chmod 700 {path}")]
    return [ok(AREA, check, f"Only you can enter the folder {path}.")]


def check_furl_file(facts: FurlFileFacts, user: int) -> list[Diagnostic]:
    """One furl file: whoever can read it can do what its role may do."""
    path = facts.path
    if facts.kind == "missing":
        return []
    if facts.kind == "link":
        text = f"{path} is a symbolic link, which is not followed."
        return [problem(AREA, "furl-file", text, f"Put the file itself there: cp --remove-destination "
                        f"$(readlink -f {path}) {path}")]  # fmt: skip
    if facts.kind != "file":
        return [problem(AREA, "furl-file", f"{path} is no file.", "Remove it, and start the controller again.")]
    if facts.owner != user:
        text = f"{path} belongs to user {facts.owner}, you are user {user}: it will not be used."
        return [problem(AREA, "furl-permissions", text, "Copy it to a file of your own, with mode 600.")]
    if facts.mode & 0o077:
        text = f"Others may read or change {path} (mode {facts.mode:04o}): it will not be used."
        fix = f"chmod 600 {path}; if somebody may have read it, start the controller anew with new furls"
        return [problem(AREA, "furl-permissions", text, fix)]
    if facts.names != 1:
        text = f"{path} has {facts.names} names (hard links), so somebody else may have put it there."
        return [problem(AREA, "furl-permissions", text, "Delete it, and copy the furl file again.")]
    if facts.error or facts.furl is None:
        text = f"{path} cannot be used: {facts.error or 'it is empty'}."
        return [problem(AREA, "furl-file", text, "Copy the whole file again from where the controller runs.")]
    return []


def check_furl_files(files: Sequence[FurlFileFacts], user: int) -> list[Diagnostic]:
    """All of them, and whether they are of one controller."""
    there = [facts for facts in files if facts.kind != "missing"]
    if not there:
        text = "There are no furl files: no controller was started here, and none was copied from elsewhere."
        fix = (
            "Start a cluster (ipcluster -n 4). If the controller runs elsewhere, copy ipcontroller-mec.furl from "
            "there (mode 600)."
        )
        return [note(AREA, "furl-file", text, fix)]
    found = [diagnostic for facts in there for diagnostic in check_furl_file(facts, user)]
    usable = [facts for facts in there if facts.furl is not None and not check_furl_file(facts, user)]
    if len(usable) == len(there):
        roles = ", ".join(facts.role for facts in usable)
        found.append(ok(AREA, "furl-permissions", f"Only you can read the furl files ({roles})."))
    return found + _one_controller(usable)


def _one_controller(usable: Sequence[FurlFileFacts]) -> list[Diagnostic]:
    controllers: dict[bytes, list[str]] = {}
    for facts in usable:
        # What engines connect to has a certificate of its own.
        if facts.furl is not None and facts.role != "engine":
            controllers.setdefault(facts.furl.fingerprint, []).append(facts.path)
    if len(controllers) <= 1:
        return []
    groups = "; ".join(" and ".join(paths) for paths in controllers.values())
    text = f"The furl files are of {len(controllers)} different controllers: {groups}."
    fix = "Those of a former controller can go: remove what is older, or copy the newer one's files again."
    return [warning(AREA, "furl-controllers", text, fix)]

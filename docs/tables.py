"""The tables of the documentation, from the code that they are about, so that they cannot be wrong."""

from __future__ import annotations

import argparse
import inspect
import re
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from ipmpi import errors, limits
from ipmpi.cli import ipcluster, ipcontroller, ipengine, steerconfig
from ipmpi.protocol import frames, messages, operations, permissions, rankmessages

PLAIN = (Exception, BaseException, object)


def literal(text: object) -> str:
    """``text`` as code."""
    return f"``{text}``"


def first_paragraph(thing: object) -> str:
    """What the docstring says first, without references that Sphinx would look up."""
    text = " ".join(inspect.getdoc(thing).split("\n\n")[0].split())  # type: ignore[union-attr]
    for role in (":class:", ":attr:", ":meth:", ":data:"):
        text = text.replace(role, "")
    return text.replace("`~ipmpi.protocol.operations.", "`").replace("`~ipmpi.client.", "`").replace("`", "*")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], widths: str = "auto", style: str = "") -> str:
    """A reStructuredText list-table.

    Args:
        head: the first row.
        rows: all others.
        widths: of the columns, in percent.
        style: a class of the style sheet.
    """
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {widths}", f"   :class: {style}"]
    lines = [*(lines if style else lines[:-1]), ""]
    for row in [head, *rows]:
        lines += [f"   {'*' if number == 0 else ' '} - {cell}" for number, cell in enumerate(row)]
    return "\n".join([*lines, ""])


def structs(union: object) -> str:
    """Tag, name, fields and purpose of each struct in a union."""
    rows = []
    for kind in typing.get_args(union):
        fields = ", ".join(field.name for field in msgspec.structs.fields(kind)) or "none"
        rows.append((literal(kind.__struct_config__.tag), literal(kind.__name__), fields, first_paragraph(kind)))
    return table(("tag", "name", "fields", "purpose"), rows)


def task_options() -> str:
    """Fields and defaults of what the tasks of one group have in common."""
    rows = []
    for field in msgspec.structs.fields(messages.TaskOptions):
        kind = str(field.type).removeprefix("<class '").removesuffix("'>")
        given = field.default_factory() if callable(field.default_factory) else field.default
        rows.append(
            (
                literal(field.name),
                literal(kind),
                "" if field.required else literal(repr(given) if given == "" else given),
            )
        )
    return table(("field", "type", "default"), rows)


def legality() -> str:
    """Role by role, what each end listens to."""
    rows = []
    for role in permissions.RECEIVES:
        for end, allowed in (
            ("the controller", permissions.CONTROLLER_RECEIVES[role]),
            ("the other end", permissions.RECEIVES[role]),
        ):
            rows.append((role, end, ", ".join(sorted(literal(kind.__name__) for kind in allowed))))
    return table(("role of the link", "who hears", "messages"), rows)


def frame_kinds() -> str:
    """Number, name and length of each kind of frame."""
    rows = []
    for kind in frames.FrameKind:
        size = str(frames.EXACT[kind]) if kind in frames.EXACT else f"up to {frames.LARGEST[kind]:,}"
        rows.append((str(int(kind)), kind.name, size, "yes" if kind in frames.NUMBERED else "no"))
    return table(("kind", "name", "payload bytes", "numbered"), rows)


def parsers() -> dict[str, argparse.ArgumentParser]:
    """The command line of each command, as the command itself reads it."""
    return {
        "ipcontroller": ipcontroller.parser(),
        "ipengine": ipengine.parser(),
        "ipmpi-steer-config": steerconfig.parser(),
        **{f"ipcluster {name}": parser for name, parser in ipcluster.parsers().items()},
    }


def options(parser: argparse.ArgumentParser) -> str:
    """Every option that ``--help`` shows."""
    rows = []
    for group in parser._action_groups:
        for action in group._group_actions:
            if action.help == argparse.SUPPRESS:
                continue
            value = str(action.metavar or "|".join(map(str, action.choices or ())))
            takes_value = bool(action.option_strings) and action.nargs != 0
            names = [f"{name} {value}" if takes_value else name for name in action.option_strings] or [value]
            meaning = re.sub(r"`([^`]+)`", r"``\1``", action.help or group.title or "")
            rows.append((", ".join(map(literal, names)), meaning))
    return table(("option", "meaning"), rows, "40 60", "options")


def bounds() -> str:
    """Every number of ``ipmpi.limits``."""
    rows = [(literal(name), f"{value:,}") for name, value in vars(limits).items() if name.isupper()]
    return table(("name", "value (bytes, seconds or a count)"), rows, "55 45")


def error_tree() -> str:
    """The tree in the docstring of ``ipmpi.errors``."""
    tree = inspect.cleandoc(errors.__doc__ or "").partition("::\n")[2].strip("\n")
    return ".. code-block:: text\n\n" + "\n".join(f"    {line}".rstrip() for line in tree.split("\n"))


def caught_by() -> str:
    """Which classes of Python's catch an exception of ours, too."""
    rows = []
    for name, kind in vars(errors).items():
        if not inspect.isclass(kind) or not issubclass(kind, errors.KernelError):
            continue
        pythons = [base for base in kind.__mro__ if not base.__module__.startswith("ipmpi") and base not in PLAIN]
        # The narrowest say it: a TimeoutError is an OSError anyway.
        narrow = [each for each in pythons if not any(each in other.__bases__ for other in pythons)]
        if narrow:
            rows.append((literal(name), ", ".join(literal(python_name(base)) for base in narrow)))
    return table(("class", "is also caught by"), rows)


def python_name(kind: type) -> str:
    """A class as one writes it in an except clause."""
    if kind.__module__ == "builtins":
        return kind.__name__
    return f"{kind.__module__.removesuffix('._base')}.{kind.__name__}"


def write(folder: Path) -> None:
    """Write all tables; files that would not change are left alone, so that Sphinx need not read them again."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "frames": frame_kinds(),
        "messages": structs(messages.AnyMessage),
        "to-rank": structs(rankmessages.ToRank),
        "to-agent": structs(rankmessages.ToAgent),
        "legality": legality(),
        "task-options": task_options(),
        "operations": structs(operations.Operation),
        "task-operations": structs(operations.TaskOperation),
        "outcomes": structs(operations.Outcome),
        "limits": bounds(),
        "errors": error_tree(),
        "caught-by": caught_by(),
        **{f"options-{name.replace(' ', '-')}": options(parser) for name, parser in parsers().items()},
    }
    for name, text in texts.items():
        path = folder / f"{name}.inc"
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")

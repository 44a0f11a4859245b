"""What lies in the current folder does not take the place of what ipmpi needs.

``python -m MODULE`` looks for modules in the current folder first, also for those of the standard library.
Controller and engines are started so, in whatever folder their user is in: a ``queue.py`` or ``secrets.py`` there
would be run instead of the real one. So ``import ipmpi``, which comes before anything else then, imports this
module first, which takes that folder out; the engine adds it again at the end, for modules of its user. (From 3.11
on, Python has the option ``-P`` for that.)
"""

# Nothing is imported here that Python has not loaded before it looks for our modules.
import os
import sys


def leave_current_folder() -> None:
    """Take the current folder out of the module search path, if ``python -m ipmpi...`` is what put it there."""
    words = list(getattr(sys, "orig_argv", ()))
    module = words[words.index("-m") + 1 : words.index("-m") + 2] if "-m" in words else []
    if sys.argv[:1] != ["-m"] or not module or not module[0].startswith("ipmpi."):
        return
    if sys.path[:1] in ([""], [_folder()]):
        del sys.path[0]


def add_current_folder() -> None:
    """Look for modules in the current folder, too: after everything else."""
    folder = _folder()
    if folder and folder not in sys.path:
        sys.path.append(folder)


def forget_current_folder() -> None:
    """Undo :func:`add_current_folder`, in a process that was forked to run no code of users."""
    folder = _folder()
    if folder in sys.path:
        sys.path.remove(folder)


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return ""


leave_current_folder()

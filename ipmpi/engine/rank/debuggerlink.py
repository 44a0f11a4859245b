"""The debugger of a rank, at its end of the socket of the node agent."""

from __future__ import annotations

from collections.abc import Callable

from ...protocol import rankmessages as rm
from ...protocol.debugging import PROMPT
from ..session.debugging import Debugging


class DebuggerLink:
    """Tells the agent what the debugger says, and waits for lines, in the main thread.

    Args:
        debugging: the debuggers of the engine.
        say: sends a message to the agent; returns whether it was sent.
        hear: waits for the next message of the agent, and handles it; returns whether more can come.
    """

    def __init__(self, debugging: Debugging, say: Callable[[rm.ToAgent], bool], hear: Callable[[], bool]) -> None:
        self._say = say
        self._hear = hear
        self._prompts = 0
        self._answers: list[str | None] = []
        """The line for the last prompt, when it has come."""
        debugging.connect(self.tell, self.ask)

    def tell(self, state: int, text: str) -> None:
        """The debugger has written something."""
        self._say(rm.DebuggerTold(self._prompts, state, text))

    def ask(self, text: str, prompt: str, place: str) -> str | None:
        """The debugger waits for a line; return it, or None if nobody is there."""
        self._prompts += 1
        self._answers.clear()
        if not self._say(rm.DebuggerTold(self._prompts, PROMPT, text, prompt, place)):
            return None
        while not self._answers:
            if not self._hear():
                return None
        return self._answers.pop()

    def answered(self, message: rm.DebuggerAnswer) -> None:
        """The agent has a line; one for an earlier prompt, which an interrupt has ended, is dropped."""
        if message.number == self._prompts:
            self._answers = [message.text]

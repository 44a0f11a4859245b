"""A client of the Debug Adapter Protocol, as an editor has one."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WITHIN = 30.0


class DapClient:
    """A connection to a debug adapter. What nobody has asked for yet waits here."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), WITHIN)
        self._file = self._sock.makefile("rb")
        self._sent = 0
        self._waiting: list[dict[str, Any]] = []

    def __enter__(self) -> DapClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()

    def drop(self) -> None:
        """Disconnect without a word, as an editor that was killed does."""
        self._file.close()
        self._sock.close()

    def send(self, command: str, **arguments: Any) -> int:
        """Send a request; return its number."""
        self._sent += 1
        request = {"seq": self._sent, "type": "request", "command": command, "arguments": arguments}
        data = json.dumps(request).encode()
        self._sock.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(data), data))
        return self._sent

    def _read(self) -> dict[str, Any]:
        size = 0
        while (line := self._file.readline()) != b"\r\n":
            if not line:
                raise EOFError
            size = int(line.partition(b":")[2])
        message: dict[str, Any] = json.loads(self._file.read(size))
        return message

    def _next(self, kind: str, name: str, value: object) -> dict[str, Any]:
        """The next message of this type in which a field has this value; others wait for who asks for them."""
        while True:
            for message in self._waiting:
                if message["type"] == kind and message[name] == value:
                    self._waiting.remove(message)
                    return message
            self._waiting.append(self._read())

    def answer(self, number: int) -> dict[str, Any]:
        """The body of the response to a request, which has succeeded."""
        message = self._next("response", "request_seq", number)
        assert message["success"], message
        body: dict[str, Any] = message.get("body") or {}
        return body

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Send a request; return the body of the response."""
        return self.answer(self.send(command, **arguments))

    def event(self, name: str) -> dict[str, Any]:
        """The body of the next event of this name."""
        body: dict[str, Any] = self._next("event", "event", name).get("body") or {}
        return body

    def is_over(self) -> bool:
        """Wait for the end of the connection."""
        try:
            while True:
                self._read()
        except (EOFError, ConnectionError):
            return True

    # --- what an editor does ---------------------------------------------------------------------------------

    def attach(self, path: Path, lines: Sequence[int]) -> list[dict[str, Any]]:
        """Attach, and set breakpoints; return what is known of them."""
        self.ask("initialize", clientID="test", adapterID="debugpy", pathFormat="path", linesStartAt1=True)
        attached = self.send("attach", justMyCode=True)
        self.event("initialized")
        asked = [{"line": line} for line in lines]
        found: list[dict[str, Any]] = self.ask("setBreakpoints", source={"path": str(path)}, breakpoints=asked)[
            "breakpoints"
        ]
        self.ask("configurationDone")
        self.answer(attached)
        return found

    def stopped(self) -> tuple[int, list[dict[str, Any]]]:
        """Wait until it stops; return the thread and its functions, innermost first."""
        thread: int = self.event("stopped")["threadId"]
        return thread, self.ask("stackTrace", threadId=thread)["stackFrames"]

    def variables(self, frame: dict[str, Any]) -> dict[str, str]:
        """Local variables of a function, as text."""
        (local, *_) = self.ask("scopes", frameId=frame["id"])["scopes"]
        found = self.ask("variables", variablesReference=local["variablesReference"])["variables"]
        return {each["name"]: each["value"] for each in found}

"""Links between the nodes of an engine set, made while it starts.

The leaders of nodes form a tree (:mod:`ipmpi.engine.agent.tree`). Each leader with others below it listens until
they have connected, which takes milliseconds; afterwards nothing of the set listens on a network. A link is TLS
1.3 over TCP. Addresses, the hash of the listener's certificate and a secret for both ends are exchanged by MPI.
They form a furl, which never leaves the memory of the set's processes.

MPI itself cannot carry this traffic: it would have to be polled all the time, beside user code that also calls it.
"""

from __future__ import annotations

import secrets
import time
from typing import Final

from ... import limits
from ...errors import ConnectionError, KernelError
from ...furl import Furl, place
from ...protocol.handshake import DiallerHandshake, Hello, ListenerHandshake, Welcome
from ...tls import LONG_LIVED_SUITES, Identity
from ...transport.dial.addresses import local_addresses
from ...transport.dial.dial import Candidate, Dial
from ...transport.dial.dialled import SOFTWARE
from ...transport.dial.listen import Listener
from ...transport.dial.negotiate import Authenticated
from ...transport.loop import Loop
from ...transport.pipes import PipeClosed

ROLE: Final = "node"


class NodeLinks:
    """The links of one leader with its neighbours on other nodes.

    Args:
        below: how many leaders will connect.

    Attributes:
        address: the furl for them; "" if none will connect.
        above: the link to the leader above, once it exists.
        below: the links to those below.
    """

    def __init__(self, below: int) -> None:
        self.address = ""
        self.above: Authenticated | None = None
        self.below: list[Authenticated] = []
        self._expected = below
        self._waits_for_above = False
        self._failure = ""
        self._loop = Loop()
        self._listener: Listener | None = None
        if below:
            self._listen()

    def _listen(self) -> None:
        identity = Identity.create(time.time(), LONG_LIVED_SUITES)
        secret = secrets.token_bytes(32)
        # Failed attempts of others are not logged: listening ends in a moment.
        listener = Listener(self._loop, ("", 0), identity, {ROLE: secret}, self._came, lambda line: None)
        hints = tuple((address, listener.port) for address in local_addresses())
        self._listener = listener
        self.address = str(Furl(identity.fingerprint, hints, ROLE, secret))

    def connect(self, above: str) -> str:
        """Make all links.

        Args:
            above: address of the leader above; "" if there is none.

        Returns:
            Why that failed, or "".
        """
        self._waits_for_above = bool(above)
        if not self._is_complete:
            if above:
                self._dial(Furl.parse(above))
            self._loop.call_later(limits.NODES_MEET, self._too_late)
            self._loop.run()
        self._stop_listening()
        self._loop.close()
        return self._failure

    def close(self) -> None:
        """Close the links and stop listening."""
        self._stop_listening()
        self._loop.close()
        for peer in [*self.below, *([self.above] if self.above is not None else [])]:
            peer.pipe.close()

    @property
    def _is_complete(self) -> bool:
        return len(self.below) == self._expected and not (self._waits_for_above and self.above is None)

    def _dial(self, address: Furl) -> None:
        def handshake(exporter: bytes) -> DiallerHandshake:
            return DiallerHandshake(ROLE, address.secret, exporter, SOFTWARE)

        def failed(error: KernelError) -> None:
            at = ", ".join(place(*hint) for hint in address.hints)
            self._failure = f"no answer at {at}" if isinstance(error, ConnectionError) else str(error)
            self._loop.stop()

        Dial(self._loop, address, handshake, self._reached, failed)

    def _reached(self, peer: Authenticated, _welcome: Welcome, _way: Candidate) -> None:
        self.above = peer
        self._look()

    def _came(self, peer: Authenticated, _hello: Hello, handshake: ListenerHandshake) -> None:
        try:
            peer.pipe.send([handshake.welcome(secrets.token_bytes(16), 0, False)])
            peer.pipe.flush()
        except PipeClosed:
            peer.pipe.close()  # it has connected by another of our addresses
            return
        self.below.append(peer)
        self._look()

    def _look(self) -> None:
        if self._is_complete:
            self._loop.stop()

    def _too_late(self) -> None:
        missing = self._expected - len(self.below)
        self._failure = f"{missing} of {self._expected} nodes below did not come" if missing else "no answer"
        self._failure += f" within {limits.NODES_MEET:.0f} s"
        self._loop.stop()

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

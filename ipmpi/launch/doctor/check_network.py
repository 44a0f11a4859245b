"""Check whether the addresses in furls lead to their controller (no I/O)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from ipmpi.furl import place
from ipmpi.transport.dial.reach import Hint

from .diagnostics import Diagnostic, Table, always, every, first, note, ok, problem, warning

AREA: Final = "Reaching the controller"
_LOOPBACK: Final = ("localhost", "127.", "::1")
_PROXIES: Final = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_CHECK: Final = "reach-{role}"
_NAME_ANOTHER: Final = (
    "Have the controller name an address that this machine reaches: {location} HOST. If a firewall is between: a "
    "login node that ssh gets through to (MultiEngineClient(ssh='user@login')), or a proxy (ipengine --proxy "
    "http://proxy:3128)."
)

_REACHED: Final[Table] = (
    (always, ok(AREA, _CHECK, "{first} answers in {milliseconds:.0f} ms, with the certificate of the {role} "
        "furl.")),
    (lambda f: f.others, note(
        AREA, _CHECK, "Other addresses of the {role} furl do not answer from here: {others}.",
        "Harmless; to be quicker, start the controller with {location} {host}")),
    (lambda f: f.role == "engine" and f.only_here, note(
        AREA, "reach-elsewhere",
        "The engine furl names this machine as itself only, so engines on other machines cannot use it.",
        "For engines elsewhere, start it without --engine-ip 127.0.0.1: ipcontroller --engine-location HOST")),
)  # fmt: skip

_ENDED: Final = (
    "No controller listens at the addresses of the {role} furl: {others}.",
    "It has ended, or its furl was not copied. Start one: ipcluster -n 4",
)
_UNREACHABLE: Final = "No address of the {role} furl can be reached from here: {others}."
_UNREACHED: Final[Table] = (
    (lambda f: "dates" in f.stages, problem(
        AREA, _CHECK, "The certificate of the controller is not valid now: {others}.",
        "Look at both clocks (date -u); or start the controller anew.")),
    (lambda f: "certificate" in f.stages, problem(
        AREA, _CHECK, "Another controller than that of the {role} furl answers: {others}.",
        "The furl is old. Copy the new furl file from where the controller runs.")),
    (lambda f: "tls" in f.stages, problem(
        AREA, _CHECK, "Something answers that is no controller: {others}.",
        "The furl is old, and another program has the port now. Copy the new furl file, or start a controller.")),
    (lambda f: "refused" in f.stages and f.asked_for, problem(AREA, _CHECK, *_ENDED)),
    (lambda f: "refused" in f.stages, warning(AREA, _CHECK, *_ENDED)),
    (lambda f: f.stages == {"name"}, problem(
        AREA, _CHECK, _UNREACHABLE, "Use a name that is known here, or an address in numbers: {location} HOST")),
    (lambda f: f.proxy, problem(AREA, _CHECK, _UNREACHABLE, f"{_NAME_ANOTHER} A proxy is set here, in "
        f"{{proxy}}.")),
    (always, problem(AREA, _CHECK, _UNREACHABLE, _NAME_ANOTHER)),
)  # fmt: skip


def check_hints(role: str, hints: Sequence[Hint], asked_for: bool, environ: Mapping[str, str]) -> list[Diagnostic]:
    """Check the addresses of one furl.

    Args:
        role: the role of the furl.
        hints: the result of each address.
        asked_for: whether the user named this furl, so that a controller should run.
        environ: the environment of this process, for its proxies.
    """
    others = [hint for hint in hints if hint.stage != "reached"]
    facts = {
        "role": role,
        "others": "; ".join(f"{place(hint.host, hint.port)}: {hint.text}" for hint in others),
        "location": f"ipcontroller {'--engine-location' if role == 'engine' else '--client-location'}",
    }
    for hint in hints:
        if hint.stage == "reached":
            only_here = all(is_loopback(each.host) for each in hints)
            return every(
                _REACHED,
                **facts,
                first=place(hint.host, hint.port),
                milliseconds=hint.seconds * 1000,
                host=hint.host,
                only_here=only_here,
            )
    proxy = next((name for name in _PROXIES if environ.get(name)), "")
    return first(_UNREACHED, **facts, stages={hint.stage for hint in hints}, asked_for=asked_for, proxy=proxy)


def is_loopback(host: str) -> bool:
    """Return whether an address is a loopback address."""
    return host.startswith(_LOOPBACK)

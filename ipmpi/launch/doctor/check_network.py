"""Judge whether the addresses in furls lead to their controller (layer L4, no I/O)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from ipmpi.transport.reach import Hint

from .diagnostics import Diagnostic, note, ok, problem, warning

AREA: Final = "Reaching the controller"
_LOOPBACK: Final = ("localhost", "127.", "::1")

_OPTION: Final = {"engine": "--engine-location"}
_WAYS: Final = (
    "If a firewall is between: a login node that ssh gets through to (MultiEngineClient(ssh='user@login')), or a "
    "proxy (ipengine --proxy http://proxy:3128)."
)


def check_hints(role: str, hints: Sequence[Hint], asked_for: bool, environ: Mapping[str, str]) -> list[Diagnostic]:
    """The addresses of one furl.

    Args:
        role: of the furl.
        hints: what became of each address.
        asked_for: the user named this furl, so a controller should be there.
        environ: variables of this process: proxies are told by them.
    """
    check = f"reach-{role}"
    reached = [hint for hint in hints if hint.stage == "reached"]
    others = [hint for hint in hints if hint.stage != "reached"]
    if not reached:
        return [_unreached(check, role, others, asked_for, environ)]
    first = reached[0]
    found = [ok(AREA, check, f"{_place(first)} answers in {first.seconds * 1000:.0f} ms, with the certificate of "
                f"the {role} furl.")]  # fmt: skip
    if others:
        text = f"Other addresses of the {role} furl do not answer from here: {_list(others)}."
        fix = f"Harmless; to be quicker, start the controller with {_location(role)} {first.host}"
        found.append(note(AREA, check, text, fix))
    if role == "engine" and all(is_loopback(hint.host) for hint in hints):
        text = "The engine furl names this machine as itself only, so engines on other machines cannot use it."
        fix = "For engines elsewhere, start it without --engine-ip 127.0.0.1: ipcontroller --engine-location HOST"
        found.append(note(AREA, "reach-elsewhere", text, fix))
    return found


def _unreached(
    check: str, role: str, hints: Sequence[Hint], asked_for: bool, environ: Mapping[str, str]
) -> Diagnostic:
    stages = {hint.stage for hint in hints}
    if "dates" in stages:
        text = f"The certificate of the controller is not valid now: {_list(hints)}."
        return problem(AREA, check, text, "Look at both clocks (date -u); or start the controller anew.")
    if "certificate" in stages:
        text = f"Another controller than that of the {role} furl answers: {_list(hints)}."
        fix = "The furl is old. Copy the new furl file from where the controller runs."
        return problem(AREA, check, text, fix)
    if "tls" in stages:
        text = f"Something answers that is no controller: {_list(hints)}."
        fix = (
            "The furl is old, and another program has the port now. Copy the new furl file, or start a controller."
        )
        return problem(AREA, check, text, fix)
    if "refused" in stages:
        text = f"No controller listens at the addresses of the {role} furl: {_list(hints)}."
        fix = "It has ended, or its furl was not copied. Start one: ipcluster -n 4"
        return (problem if asked_for else warning)(AREA, check, text, fix)
    text = f"No address of the {role} furl can be reached from here: {_list(hints)}."
    fix = f"Have the controller name an address that this machine reaches: {_location(role)} HOST. {_WAYS}"
    if stages == {"name"}:
        fix = f"Use a name that is known here, or an address in numbers: {_location(role)} HOST"
    elif proxy := next((name for name in _PROXIES if environ.get(name)), ""):
        fix += f" A proxy is set here, in {proxy}."
    return problem(AREA, check, text, fix)


_PROXIES: Final = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


def is_loopback(host: str) -> bool:
    """Whether an address means the machine it is used on."""
    return host.startswith(_LOOPBACK)


def _location(role: str) -> str:
    return f"ipcontroller {_OPTION.get(role, '--client-location')}"


def _place(hint: Hint) -> str:
    return f"[{hint.host}]:{hint.port}" if ":" in hint.host else f"{hint.host}:{hint.port}"


def _list(hints: Sequence[Hint]) -> str:
    return "; ".join(f"{_place(hint)}: {hint.text}" for hint in hints)

"""What clients say unasked."""

from __future__ import annotations

import pytest

from ipmpi.client.session import notices

Captured = pytest.CaptureFixture[str]


def test_two_clients_say_the_same_once(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    now = 1000.0
    monkeypatch.setattr(notices.time, "monotonic", lambda: now)
    notices.say("the link broke")
    notices.say("the link broke")
    notices.say("the job ends")
    assert capsys.readouterr().err == "ipmpi: the link broke\nipmpi: the job ends\n"
    now += 60.0
    notices.say("the link broke")
    assert capsys.readouterr().err == "ipmpi: the link broke\n"

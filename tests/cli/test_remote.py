"""The near end of ``ipcluster slurm --ssh``, with a far end that says what it likes, or dies."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ipmpi.cli import batch, remote
from ipmpi.errors import ConnectionError, FurlError, KernelError
from ipmpi.furl import Furl
from ipmpi.transport.ssh.sshprocess import split_destination

OnLine = Callable[[str], None]
OVER = json.dumps({"state": "over", "code": 0, "reason": ""})


class FarEnd:
    """In place of an SshSession; ``follows`` has what each ``ipcluster follow`` prints."""

    def __init__(self, follows: list[list[str]]) -> None:
        self.follows = follows
        self.asked: list[list[str]] = []
        self.trouble: list[KernelError] = []
        self.no_login: KernelError | None = None

    def __call__(self, destination: str) -> FarEnd:
        self.destination, self.remote = split_destination(destination, "ipcluster")
        return self

    def __enter__(self) -> FarEnd:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def open(self) -> None:
        if self.no_login is not None:
            raise self.no_login

    def run(self, arguments: Sequence[str], on_line: OnLine = lambda line: None) -> int:
        self.asked.append(list(arguments))
        if arguments[0] == "follow":
            for line in self.follows.pop(0):
                on_line(line)
        return 0

    def furl(self, role: str, cluster: str) -> Furl:
        assert cluster == "big"
        if self.trouble:
            raise self.trouble.pop()
        return Furl(b"f" * 32, (("10.0.0.1", 5),), role, b"s" * 32)

    def forward(self, hints: Sequence[tuple[str, int]]) -> tuple[str, int]:
        assert list(hints) == [("10.0.0.1", 5)]
        return "127.0.0.1", 6


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setattr(remote, "PAUSE", 0.0)
    yield tmp_path
    assert list((tmp_path / "clusters").iterdir()) == []


def start(far: FarEnd, monkeypatch: pytest.MonkeyPatch, *words: str, ssh: str = "me@login") -> int:
    monkeypatch.setattr(remote, "SshSession", far)
    whole = ["--ssh", ssh, "-n", "2", "--name", "big", *words]
    return remote.main("slurm", whole, batch.parser("slurm").parse_args(whole))


@pytest.mark.parametrize(
    "line",
    [
        '{"stop": true}',
        '{"failed": "yes"}',
        '{"stopped": 0}',
        "5",
        "[" * 100_000,
        '{"state": "submitted"}',
        '{"state": "over"',
        '{"state": "over", "code": "x"}',
        '{"state": "up", "furls": {"mec": "/etc/passwd"}}',
    ],
)
def test_a_far_end_can_say_what_it_likes(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    far = FarEnd([[line, json.dumps({"say": "the end"}), OVER]])
    assert start(far, monkeypatch) == 0
    assert [words[0] for words in far.asked] == ["slurm", "follow"]


def test_its_words_do_not_steer_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    events = [{"say": "\x1b[2Jone\ntwo"}, {"complain": "\x9bthree"}]
    assert start(FarEnd([[*map(json.dumps, events), OVER]]), monkeypatch) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("?[2Jone\ntwo\n", "ipcluster: ?three\n")


def test_ssh_dies_when_the_cluster_is_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    said, up = json.dumps({"say": "Submitted"}), json.dumps({"state": "up"})
    far = FarEnd([[said, up], [up, OVER]])
    far.trouble = [ConnectionError("the other end is gone")]
    saved: dict[Path, Furl] = {}
    monkeypatch.setattr(remote, "save", lambda path, made: saved.update({path: made}))
    assert start(far, monkeypatch) == 0
    assert far.asked[1:] == [["follow", "big", "--skip", "0"], ["follow", "big", "--skip", "1"]]
    assert saved[home / "security" / "big" / "ipcontroller-mec.furl"].hints == (("127.0.0.1", 6),)
    assert "the other end is gone; trying again" in capsys.readouterr().out


def test_what_cannot_be_done_here_says_how_to_stop_the_cluster_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    far = FarEnd([[json.dumps({"state": "up"})]])
    far.trouble = [FurlError("no furl file")]
    assert start(far, monkeypatch, ssh="ssh://me@login:2222") == 1
    assert capsys.readouterr().err == (
        "ipcluster: no furl file. The cluster on ssh://me@login:2222 may go on; to stop it: "
        "ssh ssh://me@login:2222 'ipcluster stop big'\n"
    )


def test_before_the_login_there_is_nothing_to_stop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    far = FarEnd([])
    far.no_login = ConnectionError("ssh does not reach login")
    assert start(far, monkeypatch) == 1
    assert capsys.readouterr().err == "ipcluster: ssh does not reach login\n"


@pytest.mark.parametrize("words", [[], ["--keep"]])
def test_when_this_end_fails_the_far_cluster_is_stopped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    def full(path: Path, made: Furl) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(remote, "save", full)
    far = FarEnd([[json.dumps({"state": "up"})]])
    with pytest.raises(OSError, match="No space left"):
        start(far, monkeypatch, *words)
    said = capsys.readouterr()
    assert "OSError: [Errno 28] No space left on device. Please report this" in said.err
    assert (["stop", "big"] in far.asked) is not bool(words)
    if words:
        assert "The cluster 'big' goes on." in said.out


def test_how_to_connect_there_is_not_told_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = [
        json.dumps({"say": "in any words", "only_here": True}),
        json.dumps({"say": "up and running, all of it"}),
    ]
    assert start(FarEnd([[*said, OVER]]), monkeypatch) == 0
    assert capsys.readouterr().out == "up and running, all of it\n"

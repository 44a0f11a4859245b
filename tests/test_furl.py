"""Furls as text, and the files that hold them: trust.md S26, S27, S28 and what a user may get wrong."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from ipmpi.errors import FurlError, SecurityError
from ipmpi.furl import (
    FILES,
    Furl,
    default_furl_file,
    ipython_dir,
    load,
    load_furl_or_file,
    read_private,
    save,
    security_dir,
    write_private,
)

FURL = Furl(bytes(range(32)), (("login1.example.org", 10105), ("127.0.0.1", 10105)), "mec", bytes(range(100, 132)))
TEXT = str(FURL)
SECRET = TEXT.rsplit("/", 1)[1]

_hosts = st.one_of(
    st.from_regex(r"[A-Za-z0-9._-]{1,60}", fullmatch=True),
    st.ip_addresses().map(str),
    st.just("fe80::1%eth0"),
)
_furls = st.builds(
    Furl,
    st.binary(min_size=32, max_size=32),
    st.lists(st.tuples(_hosts, st.integers(1, 65535)), min_size=1, max_size=4).map(tuple),
    st.from_regex(r"[a-z0-9-]{1,32}", fullmatch=True),
    st.binary(min_size=32, max_size=32),
)


# --- text ----------------------------------------------------------------------------------------------


@given(_furls)
def test_text_form_gives_the_furl_back(furl: Furl) -> None:
    assert Furl.parse(str(furl)) == furl
    assert Furl.parse(f"  {furl}\n") == furl


@given(
    st.one_of(st.text(), st.text().map(lambda text: "ipmpi://" + text), st.binary().map(lambda b: b.decode("l1")))
)
def test_any_text_is_a_furl_or_a_furl_error(text: str) -> None:
    try:
        furl = Furl.parse(text)
    except FurlError:
        return
    assert str(furl) == text.strip()


def test_every_truncation_is_refused_and_asks_for_the_whole_line() -> None:
    for length in range(1, len(TEXT)):
        with pytest.raises(FurlError, match="copy the whole line"):
            Furl.parse(TEXT[:length])
    assert Furl.parse(TEXT) == FURL


def test_every_changed_character_gives_another_furl_or_an_error() -> None:
    for position in range(len(TEXT)):
        for character in "a7/@:,%- ":
            changed = TEXT[:position] + character + TEXT[position + 1 :]
            if changed == TEXT:
                continue
            with contextlib.suppress(FurlError):
                assert Furl.parse(changed) != FURL


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the furl is empty"),
        ("  \n", "the furl is empty"),
        ("ipm", "ends inside 'ipmpi://'"),
        ("http://example.org/", "a furl starts with ipmpi://"),
        ("pb://p2du7n6oxkuoxee5hpxrkbexjnx7vdzo@127.0.0.1:41875/eiz2o443l2mu", "of the old IPython.kernel"),
        ("pbu://127.0.0.1:41875/eiz2o443l2mu", "of the old IPython.kernel"),
        (TEXT[:40], "ends inside the certificate hash"),
        (TEXT[:70], "ends after the addresses"),
        (TEXT[: -len(SECRET) - 1], "ends after the role"),
        (TEXT[:-5], "secret of this furl is cut off"),
        (TEXT + "aa", "secret of this furl has something added"),
        (TEXT[:-1] + "1", "characters other than a-z and 2-7"),
        (TEXT[:-1] + "b", "last character of the secret"),
        (TEXT.replace("10105", "99999"), "port '99999' of login1.example.org"),
        (TEXT.replace("10105", "0"), "port '0'"),
        (TEXT.replace(":10105", ""), "has no port"),
        (TEXT.replace("10105", "ten"), "port 'ten'"),
        (TEXT.replace("login1.example.org", "::1"), "needs brackets"),
        (TEXT.replace("login1.example.org", "lo gin"), "a blank or a line break"),
        (TEXT.replace("login1.example.org", "lo$in"), "'lo\\$in' in this furl is not a host name"),
        (TEXT.replace("login1.example.org", "[zz::]"), "not an IPv6 address"),
        (TEXT.replace("/mec/", "/MEC/"), "role of this furl, 'MEC'"),
        (TEXT[:80] + "\n" + TEXT[80:], "a blank or a line break"),
        ("ipmpi://" + "a" * 9000, "9008 characters is no furl"),
    ],
)
def test_what_is_wrong_is_said(text: str, sentence: str) -> None:
    with pytest.raises(FurlError, match=sentence) as caught:
        Furl.parse(text)
    assert SECRET[:20] not in str(caught.value)


def test_ipv6_addresses_are_bracketed() -> None:
    furl = Furl(FURL.fingerprint, (("fe80::1", 7), ("a", 8)), "engine", FURL.secret)
    assert "@[fe80::1]:7,a:8/engine/" in str(furl)


def test_repr_hides_the_secret_and_the_text_form_shows_it() -> None:
    assert SECRET in str(FURL)
    shown = f"{FURL!r} {[FURL]} {(FURL,)!r} {FURL.places}"
    assert SECRET not in shown
    assert repr(FURL.secret) not in shown
    assert "mec" in repr(FURL)
    assert "login1.example.org:10105" in repr(FURL)


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": b"short"},
        {"secret": b""},
        {"role": "Engine"},
        {"role": ""},
        {"hints": ()},
        {"hints": (("a b", 1),)},
        {"hints": (("a", 0),)},
        {"hints": (("a/b", 1),)},
        {"hints": (("a", 1),) * 17},
    ],
)
def test_fields_without_a_text_form_are_refused(change: dict[str, object]) -> None:
    fields: dict[str, object] = {
        "fingerprint": FURL.fingerprint,
        "hints": FURL.hints,
        "role": FURL.role,
        "secret": FURL.secret,
    }
    assert Furl(**fields) == FURL  # type: ignore[arg-type]
    with pytest.raises(FurlError):
        Furl(**{**fields, **change})  # type: ignore[arg-type]


def test_created_furls_have_secrets_of_their_own() -> None:
    made = {Furl.create(FURL.fingerprint, FURL.hints, "tc").secret for _ in range(20)}
    assert len(made) == 20
    assert all(len(secret) == 32 for secret in made)


# --- where files are -----------------------------------------------------------------------------------


def test_folder_is_ipythondir_or_dot_ipython() -> None:
    home = Path("/home/ada")
    assert ipython_dir({}, home) == home / ".ipython"
    assert ipython_dir({"IPYTHONDIR": ""}, home) == home / ".ipython"
    assert ipython_dir({"IPYTHONDIR": "/scratch/ipy"}, home) == Path("/scratch/ipy")
    assert ipython_dir({"IPYTHONDIR": "~/ipy"}, home) == home / "ipy"
    assert security_dir({}, home) == home / ".ipython/security"
    assert default_furl_file("mec", {}, home) == home / ".ipython/security/ipcontroller-mec.furl"
    assert default_furl_file("my-own", {}, home).name == "ipcontroller-my-own.furl"
    assert {default_furl_file(role, {}, home).name for role in FILES} == set(FILES.values())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    return tmp_path


def test_furl_is_found_by_text_by_file_and_by_default(home: Path) -> None:
    save(default_furl_file("mec"), FURL)
    save(home / "copied", FURL)
    assert load_furl_or_file("", "mec") == FURL
    assert load_furl_or_file(str(home / "copied"), "mec") == FURL
    assert load_furl_or_file(TEXT, "mec") == FURL


def test_missing_file_tells_how_to_get_one(home: Path) -> None:
    with pytest.raises(
        FurlError, match=r"no furl file .*ipcontroller-mec.furl: is a controller running"
    ) as caught:
        load_furl_or_file("", "mec")
    assert "`ipcluster -n 4`" in str(caught.value)


@pytest.mark.parametrize("given", ["file", "text"])
def test_furl_of_another_role_names_the_right_file(home: Path, given: str) -> None:
    engine = Furl(FURL.fingerprint, FURL.hints, "engine", FURL.secret)
    path = home / "x.furl"
    save(path, engine)
    with pytest.raises(FurlError, match=r"for engines \(ipengine\).*MultiEngineClient.*controller-mec.furl"):
        load_furl_or_file(str(path) if given == "file" else str(engine), "mec")
    assert load_furl_or_file(str(path), "engine") == engine


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"", "is empty"), (b"\xff\xfe", "not plain text"), (TEXT[:50].encode(), "copy the whole line")],
)
def test_bad_content_is_an_error_that_names_the_file(home: Path, content: bytes, sentence: str) -> None:
    path = home / "bad.furl"
    write_private(path, content)
    with pytest.raises(FurlError, match=sentence) as caught:
        load(path)
    assert str(path) in str(caught.value)


# --- S26: what may not be trusted is refused -------------------------------------------------------------


def _symlink(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to("real")


def _hard_link(path: Path) -> None:
    os.link(path, path.with_name("other-name"))


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o700)


SPOILED: list[tuple[Callable[[Path], object], str]] = [
    (_symlink, "is a symbolic link"),
    (_hard_link, "2 names"),
    (_fifo, "is a FIFO"),
    (_folder, "is a folder"),
    (lambda path: path.chmod(0o644), "mode 0644.*run `chmod 600 "),
    (lambda path: path.chmod(0o640), "run `chmod 600 "),
    (lambda path: path.chmod(0o602), "run `chmod 600 "),
    (lambda path: path.write_bytes(b"x" * 8193), "8193 bytes"),
]


@pytest.mark.parametrize(("spoil", "sentence"), SPOILED)
def test_untrusted_file_is_refused_on_load(tmp_path: Path, spoil: Callable[[Path], object], sentence: str) -> None:
    path = tmp_path / "a.furl"
    save(path, FURL)
    assert load(path) == FURL  # the twin: the same file before it was spoiled
    spoil(path)
    with pytest.raises((SecurityError, FurlError), match=sentence):
        load(path)


def test_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.furl"
    save(path, FURL)
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.raises(SecurityError, match=f"belongs to user {me}, you are user {me + 1}"):
        load(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_refuses_files_of_users(tmp_path: Path) -> None:
    path = tmp_path / "a.furl"
    save(path, FURL)
    os.chown(path, 12345, -1)
    with pytest.raises(SecurityError, match="belongs to user 12345"):
        load(path)


def test_largest_file_is_still_read(tmp_path: Path) -> None:
    write_private(tmp_path / "f", b"x" * 8192)
    assert len(read_private(tmp_path / "f")) == 8192


@pytest.mark.parametrize("planted", ["symlink", "dangling", "fifo", "folder"])
def test_save_refuses_what_was_planted_at_its_name(tmp_path: Path, planted: str) -> None:
    path, victim = tmp_path / "a.furl", tmp_path / "victim"
    victim.write_bytes(b"untouched")
    if planted == "symlink":
        path.symlink_to(victim)
    elif planted == "dangling":
        path.symlink_to(tmp_path / "made-by-link")
    elif planted == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(SecurityError, match="not a file: remove it"):
        save(path, FURL)
    assert victim.read_bytes() == b"untouched"
    assert not (tmp_path / "made-by-link").exists()


def test_save_leaves_the_other_name_of_a_hard_link_alone(tmp_path: Path) -> None:
    path, victim = tmp_path / "a.furl", tmp_path / "victim"
    victim.write_bytes(b"untouched")
    os.link(victim, path)
    save(path, FURL)
    assert victim.read_bytes() == b"untouched"
    assert load(path) == FURL


def test_temporary_name_taken_by_a_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    victim = tmp_path / "victim"
    (tmp_path / ".a.furl.guessed").symlink_to(victim)
    with pytest.raises(FurlError, match="cannot write"):
        save(tmp_path / "a.furl", FURL)
    assert not victim.exists()


def test_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    (tmp_path / "security").symlink_to(real)
    with pytest.raises(SecurityError, match=r"the folder .* is a symbolic link"):
        save(tmp_path / "security/a.furl", FURL)
    assert not list(real.iterdir())


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o722])
def test_folder_that_others_can_write_is_refused_and_left_alone(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(SecurityError, match="run `chmod go-w "):
        save(folder / "a.furl", FURL)
    assert not list(folder.iterdir())
    assert stat.S_IMODE(folder.stat().st_mode) == mode
    folder.chmod(0o755)
    save(folder / "a.furl", FURL)  # the twin
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_sticky_folder_is_good_enough_and_not_tightened(tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    save(folder / "a.furl", FURL)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777


def test_new_folder_of_any_name_is_made_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        save(tmp_path / "new/a.furl", FURL)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_our_security_folder_is_tightened(tmp_path: Path) -> None:
    folder = tmp_path / "security"
    folder.mkdir()
    folder.chmod(0o777)
    save(folder / "a.furl", FURL)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_security_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "security"
    folder.mkdir()
    folder.chmod(0o777)
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.raises(SecurityError, match="chmod go-w"):
        save(folder / "a.furl", FURL)


# --- S27, S28: never wider than 0600 ---------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_files_are_0600_and_folders_0700_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    (tmp_path / "b").mkdir()
    before = os.umask(umask)
    try:
        plain = os.open(tmp_path / "plain", os.O_WRONLY | os.O_CREAT, 0o666)
        os.close(plain)
        save(tmp_path / "b/security/a.furl" if umask != 0o277 else tmp_path / "b/a.furl", FURL)
    finally:
        os.umask(before)
    (made,) = (tmp_path / "b").rglob("*.furl")
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "plain").stat().st_mode) == 0o666 & ~umask  # the twin: the umask was in force
    if umask != 0o277:
        assert stat.S_IMODE(made.parent.stat().st_mode) == 0o700
    assert load(made) == FURL


def test_0600_is_in_the_call_that_creates_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    created: list[tuple[int, int]] = []
    really_open = os.open

    def watch(path: object, flags: int, mode: int = 0o777, **rest: object) -> int:
        if flags & os.O_CREAT:
            created.append((flags, mode))
        return really_open(path, flags, mode, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", watch)
    save(tmp_path / "a.furl", FURL)
    ((flags, mode),) = created
    assert mode == 0o600
    assert flags & os.O_EXCL
    assert flags & os.O_NOFOLLOW


@pytest.mark.parametrize("failing", ["fsync", "rename", "write"])
def test_failed_write_keeps_the_old_file_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = tmp_path / "a.furl"
    save(path, FURL)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, full)
        with pytest.raises(FurlError, match=r"cannot write .*: No space left on device"):
            save(path, Furl.create(FURL.fingerprint, FURL.hints, "mec"))
    assert load(path) == FURL
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.furl"]
    save(path, Furl.create(FURL.fingerprint, FURL.hints, "mec"))
    assert load(path) != FURL


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    count = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else None
    path = tmp_path / "a.furl"
    for _ in range(5):
        save(path, FURL)
        load(path)
        path.chmod(0o644)
        with pytest.raises(SecurityError):
            load(path)
        with pytest.raises((SecurityError, FurlError)):
            save(path / "under-a-file", FURL)
    if count is not None:
        assert len(os.listdir("/proc/self/fd")) == count

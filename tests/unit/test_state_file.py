"""Tests of the saved state's file, which is replaced atomically and read only if trusted."""

import os
import resource
import stat
from pathlib import Path

import pytest

from userspace_proxy.state_file import (
    FILE_BYTES_MAX,
    StateFile,
    StateFileError,
    file_of_proxy,
    state_dir_of,
)

NOW = 1_763_600_000.5


@pytest.fixture
def file(tmp_path):
    return StateFile(tmp_path / "lib" / "userspace-proxy" / "state.json.gz")


def cause(call, *arguments, **more):
    with pytest.raises(StateFileError) as caught:
        call(*arguments, **more)
    return str(caught.value)


def test_the_name_of_the_state_file_contains_the_proxys_name(tmp_path):
    folder = str(tmp_path)
    assert file_of_proxy(folder, "state.json.gz", "").path == tmp_path / "state.json.gz"
    named = file_of_proxy(folder, "state.json.gz", "canary").path
    assert named == tmp_path / "state-canary.json.gz"
    assert file_of_proxy("", "state.json.gz", "canary") is None


def test_a_written_state_round_trips_with_its_time(file):
    assert file.read() is None
    file.write(b"first", current_at=NOW)
    file.write(b"second", current_at=NOW + 5)
    assert file.read() == (b"second", NOW + 5)


def test_only_this_user_can_access_the_state_file(file):
    file.write(b"state", current_at=NOW)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700


def test_an_unchanged_state_can_be_confirmed_without_writing_it_again(file):
    file.write(b"state", current_at=NOW)
    inode = file.path.stat().st_ino
    file.confirm(NOW + 60)
    assert file.read() == (b"state", NOW + 60)
    assert file.path.stat().st_ino == inode


def test_a_failed_write_keeps_the_old_content_and_leaves_no_file(file):
    file.write(b"state", current_at=NOW)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        assert cause(file.write, bytes(1000), current_at=NOW + 5) == (
            f"cannot write {file.path}: File too large (give --state-dir a folder that this proxy "
            "can write, or an empty text)"
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read() == (b"state", NOW)
    assert list(file.path.parent.iterdir()) == [file.path]


def test_a_temporary_file_left_by_a_crash_is_replaced(file):
    file.write(b"state", current_at=NOW)
    (file.path.parent / "state.json.gz.new").write_bytes(b"half")
    file.write(b"whole", current_at=NOW)
    assert file.read() == (b"whole", NOW)
    assert list(file.path.parent.iterdir()) == [file.path]


def test_a_symbolic_link_in_place_of_the_new_file_is_not_followed(file, tmp_path):
    file.write(b"state", current_at=NOW)
    (tmp_path / "other").write_bytes(b"other")
    (file.path.parent / "state.json.gz.new").symlink_to(tmp_path / "other")
    file.write(b"whole", current_at=NOW)
    assert (tmp_path / "other").read_bytes() == b"other"


def test_a_directory_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / "lib").write_bytes(b"")
    file = StateFile(tmp_path / "lib" / "state.json.gz")
    assert "File exists (give --state-dir" in cause(file.write, b"state", current_at=NOW)
    assert cause(file.read) == f"cannot use {file.path}: Not a directory"


def test_an_oversized_state_is_neither_written_nor_read(file):
    """The file keeps the previous state."""
    file.write(b"state", current_at=NOW)
    twice = bytes(2 * FILE_BYTES_MAX)
    assert "the state is larger than 64 MiB" in cause(file.write, twice, current_at=NOW)
    assert file.read() == (b"state", NOW)
    os.truncate(file.path, 2 * FILE_BYTES_MAX)
    assert "it is larger than 64 MiB" in cause(file.read)
    file.write(b"next", current_at=NOW)
    assert file.read() == (b"next", NOW)


@pytest.mark.parametrize(
    ("put", "why"),
    [
        pytest.param(lambda path: path.mkdir(), "it is not a regular file", id="folder"),
        pytest.param(os.mkfifo, "it is not a regular file", id="fifo"),
        pytest.param(lambda path: path.symlink_to("other"), "it is a symbolic link", id="link"),
        pytest.param(lambda path: (path.touch(), path.chmod(0o620)), "other users may write it",
            id="group-writable"),
        pytest.param(lambda path: (path.touch(), path.chmod(0o602)), "other users may write it",
            id="world-writable"),
    ],
)  # fmt: skip
def test_an_untrusted_state_file_is_not_read(file, put, why):
    file.path.parent.mkdir(parents=True)
    put(file.path)
    assert cause(file.read) == f"cannot use {file.path}: {why}"


def test_a_state_file_of_another_user_is_not_read(file, monkeypatch):
    file.write(b"state", current_at=NOW)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert cause(file.read) == f"cannot use {file.path}: it belongs to user {owner}"


@pytest.mark.parametrize(
    ("uid", "environment", "folder"),
    [
        pytest.param(0, {"XDG_STATE_HOME": "/x"}, "/var/lib/userspace-proxy", id="root"),
        pytest.param(1000, {"XDG_STATE_HOME": "/x"}, "/x/userspace-proxy", id="xdg"),
        pytest.param(
            1000,
            {"XDG_STATE_HOME": "x", "HOME": "/home/alice"},
            "/home/alice/.local/state/userspace-proxy",
            id="home",
        ),
    ],
)
def test_the_state_directory_depends_on_the_user(uid, environment, folder, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert state_dir_of("auto") == folder
    assert state_dir_of("/y") == "/y"


def test_a_user_without_a_home_has_no_state_directory(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert state_dir_of("auto") == ""

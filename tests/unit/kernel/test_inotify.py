"""Inotify events of real directories."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from userspace_proxy.kernel.inotify import CONTENTS, NAMES, Inotify, What

WATCH = (
    "import sys; from userspace_proxy.kernel.inotify import *; Inotify().watch(sys.argv[1], NAMES)"
)


@pytest.fixture
def inotify():
    inotify = Inotify()
    yield inotify
    inotify.close()


def read(inotify: Inotify) -> list[tuple[What, str]]:
    return [(event.mask, event.name) for event in inotify.read()]


def test_the_names_of_created_moved_and_deleted_files_are_reported(inotify, tmp_path):
    inotify.watch(str(tmp_path), NAMES)
    (tmp_path / "web.yaml").write_text("")
    (tmp_path / "web.yaml").rename(tmp_path / "größe.yaml")
    (tmp_path / "größe.yaml").unlink()
    assert read(inotify) == [
        (What.CREATE, "web.yaml"),
        (What.MOVED_FROM, "web.yaml"),
        (What.MOVED_TO, "größe.yaml"),
        (What.DELETE, "größe.yaml"),
    ]


def test_a_written_file_is_reported_when_closed(inotify, tmp_path):
    number = inotify.watch(str(tmp_path), CONTENTS)
    with (tmp_path / "web.yaml").open("w") as file:
        file.write("a")
        file.flush()
        assert read(inotify) == [(What.MODIFY, "web.yaml")]
    [closed] = inotify.read()
    assert closed == (number, What.CLOSE_WRITE, "web.yaml")


def test_read_without_events_returns_immediately(inotify, tmp_path):
    inotify.watch(str(tmp_path), NAMES)
    assert inotify.read() == []


def test_undecodable_names_are_reported_surrogate_escaped(inotify, tmp_path):
    inotify.watch(str(tmp_path), NAMES)
    Path(os.fsdecode(bytes(tmp_path) + b"/\xff.yaml")).touch()
    assert read(inotify)[0] == (What.CREATE, os.fsdecode(b"\xff.yaml"))


def test_deleting_a_directory_ends_its_watch(inotify, tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()
    inotify.watch(str(folder), NAMES)
    folder.rename(tmp_path / "moved")
    (tmp_path / "moved").rmdir()
    assert read(inotify) == [(What.MOVE_SELF, ""), (What.DELETE_SELF, ""), (What.IGNORED, "")]


def test_a_directory_watched_twice_has_one_descriptor_until_unwatched(inotify, tmp_path):
    number = inotify.watch(str(tmp_path), NAMES)
    assert inotify.watch(str(tmp_path), NAMES | CONTENTS) == number
    inotify.unwatch(number)
    inotify.unwatch(number)
    assert inotify.watch(str(tmp_path), NAMES) != number


def test_an_overflow_of_the_event_queue_is_reported(inotify, tmp_path):
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    inotify.watch(str(tmp_path), NAMES)
    for name in ("a", "b"):
        (tmp_path / name).touch()
    # The kernel merges equal consecutive events.
    for _ in range(limit // 2 + 1):
        os.utime(tmp_path / "a")
        os.utime(tmp_path / "b")
    assert inotify.read()[-1] == (-1, What.Q_OVERFLOW, "")


def test_only_directories_can_be_watched(inotify, tmp_path):
    (tmp_path / "web.yaml").touch()
    with pytest.raises(NotADirectoryError):
        inotify.watch(str(tmp_path / "web.yaml"), NAMES)
    with pytest.raises(FileNotFoundError):
        inotify.watch(str(tmp_path / "nothing"), NAMES)


@pytest.mark.parametrize(
    ("limit", "problem"),
    [
        ("max_inotify_watches", "OSError: [Errno 28] No space left on device"),
        ("max_inotify_instances", "OSError: [Errno 24] Too many open files"),
    ],
)
def test_exceeding_an_inotify_limit_raises_the_kernels_error(limit, problem, tmp_path):
    # A new user namespace has its own limit.
    script = f'echo 0 > /proc/sys/user/{limit}; exec "$@"'
    command = [sys.executable, "-c", WATCH, str(tmp_path)]
    done = subprocess.run(
        ["unshare", "-Ur", "sh", "-ec", script, "sh", *command], capture_output=True, text=True
    )
    assert done.stderr.splitlines()[-1] == problem

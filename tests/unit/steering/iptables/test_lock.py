from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from userspace_proxy.errors import SteeringError
from userspace_proxy.steering.iptables.lock import xtables_lock


@pytest.fixture(autouse=True)
def path(tmp_path, monkeypatch):
    path = tmp_path / "xtables.lock"
    monkeypatch.setenv("XTABLES_LOCKFILE", str(path))
    return path


def is_free(path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_the_lock_is_held_inside_and_free_after(path):
    with xtables_lock():
        assert not is_free(path)
    assert is_free(path)


def test_an_error_inside_frees_it(path):
    with pytest.raises(ZeroDivisionError), xtables_lock():
        raise ZeroDivisionError
    assert is_free(path)


def test_a_lock_that_stays_held_is_an_error_that_names_the_holder(path):
    path.touch()
    name = Path("/proc/self/comm").read_text(encoding="utf-8").strip()
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(SteeringError) as caught, xtables_lock(wait_s=0.01):
            pass
    assert str(caught.value) == (
        f"cannot lock {path} within 0.01 s: held by {name} (pid {os.getpid()}) "
        "(it is taken up again by the next sync)"
    )


def test_a_file_that_cannot_be_opened_is_an_error_with_the_way_out(path):
    path.mkdir()
    with pytest.raises(SteeringError) as caught, xtables_lock():
        pass
    assert str(caught.value) == (
        f"cannot open {path}: Is a directory (set XTABLES_LOCKFILE to a file that you may write)"
    )

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from userspace_proxy.errors import SteeringError
from userspace_proxy.steering.iptables import legacy
from userspace_proxy.steering.iptables.legacy import (
    LegacyTables,
    find_program,
    missing_programs,
    xtables_lock,
)


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Return a function that writes a script into the only directory in PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(legacy, "MORE_PATHS", ())

    def write(name: str, script: str) -> str:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
        path.chmod(0o755)
        return str(path)

    return write


@pytest.fixture
def tables(commands):
    """Return a function that makes IPv4 tables whose restore program is a script."""

    def make(script: str) -> LegacyTables:
        commands("iptables-legacy-save", "exit 0")
        commands("iptables-legacy-restore", script)
        return LegacyTables(4)

    return make


@pytest.fixture
def lock():
    lock = os.open("/dev/null", os.O_RDONLY)
    yield lock
    os.close(lock)


def test_unloaded_tables_are_loaded_by_iptables_save(commands, monkeypatch, tmp_path):
    loaded = tmp_path / "loaded"
    commands("iptables-legacy-save", f"echo >> {loaded}")
    commands("iptables-legacy-restore", "exit 0")

    def ask(_version, _option, _given):
        if not loaded.exists():
            raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))
        return b"info"

    monkeypatch.setattr(legacy, "ask_legacy", ask)
    tables = LegacyTables(4)
    assert [tables.info("nat"), tables.info("nat")] == [b"info"] * 2
    assert loaded.read_text() == "\n"


def test_unloadable_tables_count_as_missing_and_are_tried_once(commands, monkeypatch, tmp_path):
    tried = tmp_path / "tried"
    commands("iptables-legacy-save", f"echo >> {tried}; exit 3")
    commands("iptables-legacy-restore", "exit 0")

    def refuse(_version, _option, _given):
        raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))

    monkeypatch.setattr(legacy, "ask_legacy", refuse)
    tables = LegacyTables(4)
    for _ in range(2):
        with pytest.raises(SteeringError, match="this kernel has no legacy tables"):
            tables.info("nat")
    assert tried.read_text() == "\n"


def test_only_legacy_variants_of_the_iptables_programs_are_used(commands):
    commands("iptables-restore", "exit 0")
    assert find_program(4, "restore") == []
    multi = commands("xtables-legacy-multi", "exit 0")
    assert find_program(6, "restore") == [multi, "ip6tables-restore"]
    found = commands("iptables-legacy-restore", "exit 0")
    assert find_program(4, "restore") == [found]


def test_missing_iptables_programs_are_named_in_the_error(commands):
    commands("iptables-legacy-save", "exit 0")
    assert missing_programs() == ["iptables-legacy-restore"]
    with pytest.raises(SteeringError) as caught:
        LegacyTables(4)
    assert str(caught.value) == (
        "cannot use the legacy tables: iptables-legacy-restore is missing "
        "(install iptables 1.8.7 or later, or run with --steering=nftables)"
    )


def test_edits_are_passed_to_iptables_restore_as_one_text(tables, tmp_path, lock):
    script = f'echo "$@" >{tmp_path}/in; while read line; do echo "$line"; done >>{tmp_path}/in'
    tables(script).restore("nat", [":UPROXY-PRE - [0:0]", "-A UPROXY-PRE -j RETURN"], lock)
    assert (tmp_path / "in").read_text(encoding="ascii").splitlines() == [
        "--noflush",
        "*nat",
        ":UPROXY-PRE - [0:0]",
        "-A UPROXY-PRE -j RETURN",
        "COMMIT",
    ]


def test_the_error_message_of_iptables_restore_is_raised(tables, lock):
    refusing = tables("echo 'line 2 failed' >&2; exit 1")
    with pytest.raises(SteeringError) as caught:
        refusing.restore("nat", [], lock)
    assert str(caught.value) == "cannot change the iptables table nat: line 2 failed"
    assert not refusing.would_accept("nat", [])


def test_edits_can_be_tested_without_applying_them(tables):
    assert tables('test "$*" = "--noflush --test"').would_accept("filter", [])


def test_iptables_restore_inherits_the_lock_and_locks_a_private_file(tables, lock):
    # test is a shell builtin, so it doesn't need PATH.
    tables(
        f'test -e /proc/self/fd/{lock} && test "$XTABLES_LOCKFILE" != /run/xtables.lock'
    ).restore("nat", [], lock)


@pytest.fixture
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


def test_the_xtables_lock_is_held_inside_the_block_and_released_afterwards(path):
    with xtables_lock():
        assert not is_free(path)
    assert is_free(path)


def test_an_error_while_the_xtables_lock_is_held_releases_it(path):
    with pytest.raises(ZeroDivisionError), xtables_lock():
        raise ZeroDivisionError
    assert is_free(path)


def test_a_lock_held_beyond_the_wait_is_an_error_naming_the_holder(path):
    path.touch()
    name = Path("/proc/self/comm").read_text(encoding="utf-8").strip()
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(SteeringError) as caught, xtables_lock(wait_s=0.01):
            pass
    assert str(caught.value) == (
        f"cannot lock {path} within 0.01 s: held by {name} (pid {os.getpid()}) "
        "(the next sync tries again)"
    )


def test_an_unopenable_lock_file_is_an_error_with_a_remedy(path):
    path.mkdir()
    with pytest.raises(SteeringError) as caught, xtables_lock():
        pass
    assert str(caught.value) == (
        f"cannot open {path}: Is a directory (set XTABLES_LOCKFILE to a file that you may write)"
    )

from __future__ import annotations

import os
from textwrap import dedent

import pytest

from userspace_proxy.steering.iptables.restore import Restore, TextEdit, find_command
from userspace_proxy.steering.iptables.rules import NAT_JUMPS, Jump, NatRule
from userspace_proxy.steering.names import ChainNames


def test_an_edit_as_text():
    edit = TextEdit("nat", ChainNames("canary"))
    edit.make_chain("UPROXY-PRE")
    edit.flush("UPROXY-PRE")
    edit.make_chain("UPROXY-O1abcd")
    edit.flush("UPROXY-O2abcd")
    edit.append("UPROXY-PRE", Jump("UPROXY-O1abcd", "10.96.0.0", 16))
    edit.append("UPROXY-O1abcd", NatRule("tcp", "10.96.7.1", 80, 36001))
    edit.drop_chain("UPROXY-O2abcd")
    edit.remove_number("PREROUTING", 2)
    edit.insert_first("PREROUTING", NAT_JUMPS[0].rule)
    assert str(edit) == dedent("""\
        *nat
        :UPROXY-PRE-canary - [0:0]
        :UPROXY-O1abcdcanary - [0:0]
        -F UPROXY-O2abcdcanary
        -A UPROXY-PRE-canary -d 10.96.0.0/16 -j UPROXY-O1abcdcanary
        -A UPROXY-O1abcdcanary -d 10.96.7.1/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 36001
        -X UPROXY-O2abcdcanary
        -D PREROUTING 3
        -I PREROUTING 1 -m comment --comment userspace-proxy -j UPROXY-PRE-canary
        COMMIT
    """)


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """A directory of commands that is all there is."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("userspace_proxy.steering.iptables.restore.MORE_PATHS", ())

    def write(name: str, script: str) -> str:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
        path.chmod(0o755)
        return str(path)

    return write


def test_the_command_of_the_legacy_tables_is_taken(commands):
    commands("iptables-restore", "exit 0")
    assert find_command(4) == []
    multi = commands("xtables-legacy-multi", "exit 0")
    assert find_command(6) == [multi, "ip6tables-restore"]
    legacy = commands("iptables-legacy-restore", "exit 0")
    assert find_command(4) == [legacy]


def test_without_a_command_there_is_none(commands):
    assert not Restore(4).is_there


@pytest.mark.parametrize(("status", "is_done"), [(0, True), (4, False)])
def test_its_exit_status_says_whether_it_is_in_force(commands, tmp_path, status, is_done):
    script = f'while read line; do echo "$line"; done >{tmp_path}/in; exit {status}'
    commands("iptables-legacy-restore", script)
    lock = os.open("/dev/null", os.O_RDONLY)
    assert Restore(4).run("*nat\nCOMMIT\n", lock) is is_done
    os.close(lock)
    assert (tmp_path / "in").read_text(encoding="ascii") == "*nat\nCOMMIT\n"


def test_it_inherits_the_lock_and_has_one_of_its_own(commands, tmp_path):
    lock = os.open(tmp_path, os.O_RDONLY)
    commands(
        "iptables-legacy-restore",
        f'test -e /proc/self/fd/{lock} && test "$XTABLES_LOCKFILE" != /run/xtables.lock',
    )
    # test is built into the shell, so nothing is needed from PATH.
    assert Restore(4).run("", lock)
    os.close(lock)

"""Changes of a legacy table, with a table in memory and a real lock file."""

from __future__ import annotations

from textwrap import dedent

import pytest

from userspace_proxy.errors import SteeringError
from userspace_proxy.steering.iptables.legacy_table import (
    ATTEMPTS,
    LegacyTable,
    TableDifference,
    compare,
    edits_between,
    parse_table,
    rename_chains,
    split_target,
    target_of,
)
from userspace_proxy.steering.iptables.rules import NAT_JUMPS, OUT, PRE
from userspace_proxy.steering.names import ChainNames

WEB = "-d 10.96.7.1/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 36001"
CART = "-d 10.96.7.2/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 36002"
TO_PRE, TO_OUT = (jump.line for jump in NAT_JUMPS)
CHAINS = {PRE: (WEB,), OUT: (WEB,)}
IN_FORCE = {"PREROUTING": (TO_PRE,), "OUTPUT": (TO_OUT,), **CHAINS}


class Memory:
    """A table in memory, in place of the kernel's; ``theirs`` changes it like another program."""

    def __init__(self) -> None:
        self.chains: dict[str, list[str]] = {"PREROUTING": [], "OUTPUT": []}
        self.number = 0
        self.writers: list[str] = []
        self.refusal = ""
        self.unreadable_after = 0
        self.before_write = lambda: None

    def info(self, _table):
        if 0 < self.unreadable_after <= self.number:
            raise SteeringError("out of memory")
        return str(self.number).encode()

    def save(self, _table):
        heads = [f":{chain} - [0:0]" for chain in self.chains]
        rules = [f"-A {chain} {line}" for chain in self.chains for line in self.chains[chain]]
        return "\n".join(["*nat", *heads, *rules, "COMMIT", ""])

    def restore(self, _table, edits, _lock):
        self._write("restore", edits)

    def make(self, _table, edits):
        self._write("python-iptables", edits)

    def theirs(self, edit):
        self._edit(edit)
        self.number += 1

    def _write(self, writer, edits):
        self.before_write()
        self.writers.append(writer)
        if self.refusal:
            raise SteeringError(self.refusal)
        before = {chain: list(lines) for chain, lines in self.chains.items()}
        try:
            for edit in edits:
                self._edit(edit)
        except (KeyError, ValueError) as exc:
            self.chains = before
            raise SteeringError("refused") from exc
        self.number += 1

    def _edit(self, edit):
        command, _, rest = edit.partition(" ")
        chain, _, line = rest.partition(" ")
        match command:
            case "-A":
                self.chains[chain].append(line)
            case "-I":
                number, _, line = line.partition(" ")
                self.chains[chain].insert(int(number) - 1, line)
            case "-D":
                self.chains[chain].remove(line)
            case "-F":
                self.chains[chain].clear()
            case "-X":
                del self.chains[chain]
            case _:
                self.chains[command[1:]] = []


@pytest.fixture(autouse=True)
def lock_file(tmp_path, monkeypatch):
    path = tmp_path / "xtables.lock"
    monkeypatch.setenv("XTABLES_LOCKFILE", str(path))
    return path


@pytest.fixture
def kernel():
    return Memory()


@pytest.fixture
def nat(kernel):
    return LegacyTable("nat", kernel, kernel, ChainNames())


def lines(kernel: Memory) -> dict[str, tuple[str, ...]]:
    return {chain: tuple(found) for chain, found in kernel.chains.items()}


def test_differences_are_counted_and_corrected_in_one_commit():
    contents = {
        "PREROUTING": ("-j OTHERS", TO_PRE),
        "OUTPUT": (),
        PRE: (CART,),
        "UPROXY-O1abcd": (CART,),
        "OTHERS": (),
    }
    difference = compare(contents, CHAINS, NAT_JUMPS)
    assert "\n".join(difference.edits) == dedent(f"""\
        :UPROXY-OUT - [0:0]
        -F UPROXY-PRE
        -A UPROXY-PRE {WEB}
        -A UPROXY-OUT {WEB}
        -F UPROXY-O1abcd
        -X UPROXY-O1abcd
        -D PREROUTING {TO_PRE}
        -I OUTPUT 1 {TO_OUT}
        -I PREROUTING 1 {TO_PRE}""")
    # WEB is missing twice, CART is present twice too often, one jump is missing and one is late.
    assert difference.count == 6
    assert set(difference.lines) == {WEB, CART}
    assert difference.has_other_jumps
    assert difference.overtaken == {("PREROUTING", "-j OTHERS")}


@pytest.mark.parametrize(
    ("contents", "count"),
    [
        pytest.param(IN_FORCE, 0, id="equal"),
        pytest.param(IN_FORCE | {PRE: (WEB, WEB)}, 1, id="doubled-rule"),
        pytest.param(IN_FORCE | {PRE: ("-j RETURN", WEB)}, 1, id="foreign-rule"),
        pytest.param(IN_FORCE | {"OUTPUT": (TO_OUT, TO_OUT)}, 1, id="doubled-jump"),
        pytest.param(IN_FORCE | {"OUTPUT": (f"-p tcp {TO_OUT}",)}, 1, id="narrower-jump"),
        pytest.param(IN_FORCE | {"PREROUTING": (TO_PRE, "-j OTHERS")}, 0, id="others-behind"),
        pytest.param(IN_FORCE | {"(UPROXY-PRE-canary)": (CART,)}, 0, id="another-proxy"),
        pytest.param(
            IN_FORCE | {"PREROUTING": ("-j (UPROXY-PRE-canary)", TO_PRE)}, 0, id="behind-a-proxy"
        ),
    ],
)
def test_the_differences_between_a_table_and_its_desired_rules_are_counted(contents, count):
    difference = compare(contents, CHAINS, NAT_JUMPS)
    assert (difference.count, bool(difference)) == (count, count > 0)


def test_rules_in_a_different_order_count_as_a_difference():
    chains = {PRE: (WEB, CART), OUT: ()}
    contents = IN_FORCE | {PRE: (CART, WEB), OUT: ()}
    assert compare(contents, chains, NAT_JUMPS) == TableDifference(
        count=1, edits=(f"-F {PRE}", f"-A {PRE} {WEB}", f"-A {PRE} {CART}")
    )


def test_a_chain_that_other_programs_jump_to_is_flushed_but_kept():
    contents = IN_FORCE | {"OTHERS": ("-j UPROXY-O1abcd",), "UPROXY-O1abcd": (WEB,)}
    assert compare(contents, CHAINS, NAT_JUMPS).edits == ("-F UPROXY-O1abcd",)
    assert not compare(contents | {"UPROXY-O1abcd": ()}, CHAINS, NAT_JUMPS)


def test_a_change_from_a_known_state_does_not_read_the_table(kernel, nat):
    assert nat.put(CHAINS, NAT_JUMPS).count == 4
    kernel.save = None
    assert nat.put({PRE: (WEB,), OUT: ()}, NAT_JUMPS) == TableDifference()
    assert kernel.writers == ["restore", "python-iptables"]
    assert lines(kernel) == IN_FORCE | {OUT: ()}


def test_a_change_is_applied_even_if_the_table_cannot_be_read_after_it(kernel, nat):
    kernel.unreadable_after = 1
    assert nat.put(CHAINS, NAT_JUMPS).count == 4
    kernel.unreadable_after = 0
    assert nat.has_changed()
    assert not nat.put(CHAINS, NAT_JUMPS)
    assert not nat.has_changed()


def test_many_edits_use_iptables_restore(kernel, nat):
    nat.put(CHAINS, NAT_JUMPS)
    nat.put({PRE: (WEB, CART), OUT: (WEB, CART)}, NAT_JUMPS)
    assert kernel.writers == ["restore", "restore"]


def test_a_jump_is_added_even_if_the_chains_are_unchanged(kernel, nat):
    nat.put(CHAINS, NAT_JUMPS[:1])
    assert nat.put(CHAINS, NAT_JUMPS).has_other_jumps
    assert lines(kernel) == IN_FORCE


def test_an_unchanged_table_takes_no_lock(kernel, nat, lock_file):
    nat.put(CHAINS, NAT_JUMPS)
    lock_file.unlink()
    lock_file.mkdir()
    assert nat.put(CHAINS, NAT_JUMPS) == TableDifference()
    nat.forget()
    assert nat.put(CHAINS, NAT_JUMPS) == TableDifference()


def test_a_change_by_another_program_causes_a_full_comparison(kernel, nat):
    nat.put(CHAINS, NAT_JUMPS)
    kernel.theirs(f"-F {OUT}")
    assert nat.put({PRE: (CART,), OUT: (WEB,)}, NAT_JUMPS).count == 3
    assert lines(kernel) == IN_FORCE | {PRE: (CART,)}


def test_a_rejected_edit_causes_a_full_comparison(kernel, nat):
    nat.put({**CHAINS, "UPROXY-O1abcd": (WEB,)}, NAT_JUMPS)
    del kernel.chains["UPROXY-O1abcd"]
    assert nat.put(CHAINS, NAT_JUMPS) == TableDifference()
    assert lines(kernel) == IN_FORCE


def test_a_jump_moves_ahead_of_another_programs_rule_only_once(kernel, nat):
    nat.put(CHAINS, NAT_JUMPS)
    kernel.theirs("-I OUTPUT 1 -j OTHERS")
    assert nat.put(CHAINS, NAT_JUMPS).count == 1
    assert kernel.chains["OUTPUT"] == [TO_OUT, "-j OTHERS"]
    kernel.theirs("-D OUTPUT -j OTHERS")
    kernel.theirs("-I OUTPUT 1 -j OTHERS")
    assert nat.put(CHAINS, NAT_JUMPS).count == 0


def test_a_change_is_retried_if_another_program_writes_without_the_lock(kernel, nat):
    theirs = iter(["-A OUTPUT -j OTHERS"])

    def interfere():
        for edit in theirs:
            kernel.theirs(edit)
            raise SteeringError("table has changed")

    kernel.before_write = interfere
    nat.put(CHAINS, NAT_JUMPS)
    assert lines(kernel) == IN_FORCE | {"OUTPUT": (TO_OUT, "-j OTHERS")}


def test_a_change_fails_if_another_program_never_stops_writing(kernel, nat):
    tries = []

    def interfere():
        tries.append(kernel.theirs("-A OUTPUT -j OTHERS"))
        raise SteeringError("table has changed")

    kernel.before_write = interfere
    with pytest.raises(SteeringError, match="table has changed"):
        nat.put(CHAINS, NAT_JUMPS)
    assert len(tries) == ATTEMPTS


def test_a_rejected_change_keeps_the_old_rules_and_causes_a_full_comparison(kernel, nat):
    nat.put(CHAINS, NAT_JUMPS)
    kernel.refusal = "out of memory"
    with pytest.raises(SteeringError, match="out of memory"):
        nat.put({PRE: (CART,), OUT: (CART,)}, NAT_JUMPS)
    assert lines(kernel) == IN_FORCE
    assert kernel.writers == ["restore", "python-iptables", "restore"]
    kernel.refusal = ""
    assert nat.put({PRE: (CART,), OUT: (CART,)}, NAT_JUMPS).count == 4
    assert lines(kernel) == IN_FORCE | {PRE: (CART,), OUT: (CART,)}


def test_removing_the_proxys_rules_keeps_other_rules_except_jumps_to_its_chains(kernel, nat):
    kernel.chains["OTHERS"] = ["-j UPROXY-O1abcd", "-j RETURN"]
    kernel.chains["UPROXY-O1abcd"] = []
    nat.put({**CHAINS, "UPROXY-O1abcd": (WEB,)}, NAT_JUMPS)
    nat.remove_all()
    assert lines(kernel) == {"PREROUTING": (), "OUTPUT": (), "OTHERS": ("-j RETURN",)}
    nat.remove_all()
    assert kernel.writers == ["restore", "restore"]


SAVED = dedent("""\
    # Generated by iptables-save v1.8.9 on Fri Nov 20 12:00:00 2026
    *nat
    :PREROUTING ACCEPT [0:0]
    :OUTPUT DROP [17:1020]
    :UPROXY-PRE - [0:0]
    :UPROXY-PRE-canary - [0:0]
    :UPROXY-O1abcdcanary - [0:0]
    -A PREROUTING -m comment --comment userspace-proxy -j UPROXY-PRE-canary
    -A PREROUTING
    -A UPROXY-PRE-canary -d 10.96.0.0/16 -j UPROXY-O1abcdcanary
    -A UPROXY-O1abcdcanary -d 10.96.7.1/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 36001
    COMMIT
    # Completed on Fri Nov 20 12:00:00 2026
""")


def test_a_table_is_parsed_into_chains_with_this_programs_names():
    assert parse_table(SAVED, ChainNames("canary").known) == {
        "PREROUTING": ("-m comment --comment userspace-proxy -j UPROXY-PRE", ""),
        "OUTPUT": (),
        "(UPROXY-PRE)": (),
        "UPROXY-PRE": ("-d 10.96.0.0/16 -j UPROXY-O1abcd",),
        "UPROXY-O1abcd": ("-d 10.96.7.1/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 36001",),
    }


def test_line_separators_in_a_comment_do_not_end_a_rule_line():
    rule = '-m comment --comment "one\x0b-A two\u2028three" -j ACCEPT'
    assert parse_table(f":INPUT ACCEPT [0:0]\n-A INPUT {rule}\n", str) == {"INPUT": (rule,)}


def test_a_rule_of_an_undeclared_chain_is_an_error():
    with pytest.raises(SteeringError, match="'OTHERS' is not declared"):
        parse_table(":INPUT ACCEPT [0:0]\n-A OTHERS -j ACCEPT\n", str)


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (":UPROXY-PRE - [0:0]", ":UPROXY-PRE-canary - [0:0]"),
        (
            "-A UPROXY-PRE -d 10.96.0.0/16 -j UPROXY-O1abcd",
            "-A UPROXY-PRE-canary -d 10.96.0.0/16 -j UPROXY-O1abcdcanary",
        ),
        (
            "-I INPUT 1 -m comment --comment userspace-proxy -j UPROXY-TCP",
            "-I INPUT 1 -m comment --comment userspace-proxy -j UPROXY-TCP-canary",
        ),
        ("-D INPUT -j OTHERS-UPROXY-TCP", "-D INPUT -j OTHERS-UPROXY-TCP"),
    ],
    ids=["new-chain", "jump-within", "jump-from-outside", "chain-of-others"],
)
def test_chains_in_edits_are_renamed_to_their_names_in_the_kernel(edit, named):
    assert rename_chains(edit, ChainNames("canary").in_kernel) == named


@pytest.mark.parametrize(
    ("line", "asked", "target"),
    [
        ("-p tcp -j REJECT --reject-with tcp-reset", "-p tcp", "REJECT"),
        ("-g OTHERS", "", "OTHERS"),
        ('-m comment --comment "see \\"it\\" -j DROP" -j ACCEPT', None, "ACCEPT"),
        ("-p icmp", "-p icmp", ""),
    ],
    ids=["jump", "goto", "comment", "counter"],
)
def test_a_rule_line_is_split_into_conditions_and_target(line, asked, target):
    assert target_of(line) == target
    assert split_target(line)[0] == (line[: line.rindex(" -j")] if asked is None else asked)


def test_differing_chains_are_rewritten_after_all_chains_are_created():
    have = {
        "SAME": ("-j A",),
        "OTHER": ("-j A",),
        "EMPTY": (),
        "GONE": ("-j GONE-2",),
        "GONE-2": (),
    }
    want = {"SAME": ("-j A",), "OTHER": ("-j NEW",), "EMPTY": ("-j A",), "NEW": ("-j A", "-j B")}
    assert list(edits_between(have, want)) == [
        ":NEW - [0:0]",
        "-F OTHER",
        "-A OTHER -j NEW",
        "-A EMPTY -j A",
        "-A NEW -j A",
        "-A NEW -j B",
        "-F GONE",
        "-F GONE-2",
        "-X GONE",
        "-X GONE-2",
    ]

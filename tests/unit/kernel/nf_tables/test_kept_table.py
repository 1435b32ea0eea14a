"""Keeping the contents of an nftables table in a real kernel."""

from __future__ import annotations

import errno
import itertools
import os
import socket
from contextlib import closing, contextmanager

import pytest

from userspace_proxy.errors import SteeringConflict, SteeringError
from userspace_proxy.kernel.netlink import Requests
from userspace_proxy.kernel.nf_tables import NftablesError, Ruleset, TableWriter
from userspace_proxy.kernel.nf_tables import expressions as x
from userspace_proxy.kernel.nf_tables.kept_table import KeptTable, Repair
from userspace_proxy.kernel.nf_tables.nft_table import NftTable, TableWatch
from userspace_proxy.kernel.nf_tables.owned import OwnedTable

DNS, WEB, HTTPS = (("ports", port.to_bytes(2, "big"), b"") for port in (53, 80, 443))


def no_buffers(_requests, _numbers):
    """Fail as if the kernel had no buffer for the reply to a listing."""
    raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))


UNHEARD = NftablesError(errno.ENOBUFS, 0, is_certain=False)


class Contents:
    """The wanted contents of a table; ``nft`` prints the table's actual state."""

    def __init__(self) -> None:
        self.elements = {WEB}
        self.rules = [x.UDP + x.verdict(x.ACCEPT)]
        self.optional = x.TCP + x.verdict(x.ACCEPT)

    def create(self, is_complete: bool) -> list[list[bytes]]:
        table = TableWriter("ours")
        table.create()
        table.add_set("ports", x.INET_SERVICE)
        table.add_chain("input")
        for rule in (*self.rules, *([self.optional] if is_complete else ())):
            table.add_rule("input", rule)
        return [table.messages]

    def chain(self, *rules: bytes) -> list[list[bytes]]:
        """Replace the rules; return the change."""
        self.rules = [*rules]
        table = TableWriter("ours")
        table.flush_chain("input")
        for rule in (*rules, self.optional):
            table.add_rule("input", rule)
        return [table.messages]


@pytest.fixture
def contents():
    return Contents()


@pytest.fixture
def commits_fail(monkeypatch):
    """Return a function that makes commits fail, after taking effect if an error isn't certain."""

    @contextmanager
    def fail(errors):
        commit = Ruleset.commit

        def commit_and_fail(ruleset, messages):
            error = next(errors)
            if not error.is_certain:
                commit(ruleset, messages)
            raise error

        with monkeypatch.context() as memory:
            memory.setattr(Ruleset, "commit", commit_and_fail)
            yield

    return fail


@pytest.fixture
def table(node, contents):
    with closing(KeptTable("ours", ["ports"], contents.create, lambda: contents.elements)) as table:
        yield table


@pytest.fixture
def printed(node):
    return lambda: node.run("nft -a list table inet ours")


@pytest.fixture
def refused(monkeypatch):
    """Return a function that makes the transactions with these numbers, counted from 0, fail."""

    def refuse(*numbers: int, code: int = errno.EINVAL) -> None:
        commit, waiting = Ruleset.commit, iter(range(99))

        def commit_or_refuse(ruleset, messages):
            if next(waiting) in numbers:
                raise NftablesError(code, 0)
            commit(ruleset, messages)

        monkeypatch.setattr(Ruleset, "commit", commit_or_refuse)

    return refuse


def test_a_change_of_elements_leaves_the_rest_of_the_table_unchanged(table, contents, printed):
    table.write_all()
    before = printed()
    contents.elements = {DNS}
    assert table.change({WEB}, {DNS}) == Repair()
    assert table.is_known()
    assert printed() == before.replace("80", "53")


def test_a_change_also_repairs_another_programs_edit(node, table, contents, printed):
    table.write_all()
    handle = printed().splitlines()[0]
    node.run("nft 'flush set inet ours ports; add element inet ours ports { 443 }'")
    contents.elements = {WEB, DNS}
    assert table.change((), {DNS}) == Repair(3, {HTTPS}, {WEB, DNS})
    assert "elements = { 53, 80 }" in printed()
    # The handle is the same, so the table wasn't rewritten.
    assert handle in printed()


def test_a_rejected_change_is_retried_as_differences_and_then_as_a_whole_table(
    table, contents, printed, refused
):
    table.write_all()
    handle = printed().splitlines()[0]
    contents.elements = {DNS}
    refused(0)
    assert table.change({WEB}, {DNS}) == Repair(2, {WEB}, {DNS})
    assert handle in printed()
    contents.elements = {DNS, WEB}
    refused(0, 1)
    assert table.change((), {WEB}) == Repair(1, set(), {DNS, WEB})
    assert handle not in printed()
    assert "elements = { 53, 80 }" in printed()


def test_a_rejected_change_is_compared_again_and_is_not_drift(table, contents, printed, refused):
    table.write_all()
    contents.elements, before = {DNS}, contents.elements
    refused(0, 1, 2, 3)
    with pytest.raises(NftablesError):
        table.change({WEB}, {DNS})
    contents.elements = before
    assert not table.is_known()
    assert table.put_right() == Repair(0, set(), set())
    assert table.is_known()


def test_after_a_rejected_rewrite_the_tables_contents_count_as_unknown(node, table, refused):
    table.write_all()
    node.run("nft flush ruleset")
    refused(0, 1)
    with pytest.raises(NftablesError):
        table.write_all()
    assert not table.is_known()


@pytest.mark.parametrize("change", ["all", "rules", "chains"])
def test_a_change_that_cannot_be_read_back_takes_effect_and_is_compared_later(
    table, contents, printed, monkeypatch, change
):
    table.write_all()

    def fail(*_arguments):
        raise SteeringError("cannot query nftables")

    with monkeypatch.context() as broken:
        broken.setattr(Ruleset, "rules", fail)
        broken.setattr(Ruleset, "tables", fail)
        if change == "all":
            contents.elements = {DNS}
            table.write_all()
        elif change == "rules":
            table.redefine(contents.chain(x.UDP + x.verdict(x.DROP)))
        else:
            added = TableWriter("ours")
            added.add_chain("more")
            table.change_chains([added.messages], gone=(), new=("more",))
    expected = {"all": "elements = { 53 }", "rules": "udp drop", "chains": "chain more"}
    assert expected[change] in printed()
    assert not table.is_known()
    table.put_right()
    assert table.is_known()


def test_the_contents_of_a_table_are_known_after_one_failed_listing(table, contents, monkeypatch):
    table.write_all()
    listed, tables = [], Ruleset.tables

    def fail_once(ruleset, family):
        listed.append(family)
        if len(listed) == 1:
            raise SteeringError("cannot query nftables")
        return tables(ruleset, family)

    monkeypatch.setattr(Ruleset, "tables", fail_once)
    table.redefine(contents.chain(x.UDP + x.verdict(x.DROP)))
    assert table.is_known()


@pytest.mark.parametrize(
    ("command", "count"),
    [
        pytest.param("flush chain inet ours input", 2, id="rules-removed"),
        pytest.param("add chain inet ours more", 1, id="chain-added"),
        # This removes one element, a set, a chain and two rules.
        pytest.param("flush ruleset", 5, id="table-removed"),
        pytest.param("add table inet others", 0, id="another-table"),
    ],
)
def test_only_changes_of_its_table_are_drift_and_are_repaired(node, table, printed, command, count):
    table.write_all()
    before = node.run("nft list table inet ours")
    node.run(f"nft {command}")
    assert table.put_right().count == count
    assert node.run("nft list table inet ours") == before
    assert table.is_known()


@pytest.fixture
def meanwhile(node, monkeypatch):
    """Return a function that makes nft commands run right before and after each transaction."""

    def begin(before: str, after: str) -> None:
        commit = Ruleset.commit

        def commit_among_others(ruleset, messages):
            node.run(f"nft {before}")
            commit(ruleset, messages)
            node.run(f"nft {after}")

        monkeypatch.setattr(Ruleset, "commit", commit_among_others)

    return begin


def test_concurrent_changes_of_other_tables_are_not_drift(table, contents, meanwhile):
    """If these changes counted as drift, the table would be rewritten after each write."""
    meanwhile("add table inet others", "delete table inet others")
    table.write_all()
    assert table.is_known()
    table.redefine(contents.chain(x.UDP + x.verdict(x.DROP)))
    assert table.is_known()
    assert table.change({WEB}, {DNS}) == Repair()
    assert table.is_known()


@pytest.mark.parametrize("is_first", [True, False], ids=["first-write", "rules"])
def test_another_programs_change_right_after_a_write_is_repaired(
    node, table, contents, meanwhile, monkeypatch, is_first
):
    table.write_all()
    before = node.run("nft list table inet ours")
    meanwhile("add table inet others", "add chain inet ours more")
    if is_first:
        table.write_all()
    else:
        table.redefine(contents.chain(*contents.rules))
    monkeypatch.undo()
    assert table.put_right().count > 0
    assert node.run("nft list table inet ours") == before
    assert table.is_known()


def test_a_table_rewritten_after_lost_events_counts_no_drift(node, table, meanwhile, monkeypatch):
    """After lost events the new contents can't be read back, but no program has changed them."""
    table.write_all()
    events = table._watch._events
    events._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    many = "; ".join(f"add table inet other{n}; delete table inet other{n}" for n in range(50))
    meanwhile("add table inet other", f"'{many}'")
    table.write_all()
    monkeypatch.undo()
    assert not table.is_known()
    assert table.put_right().count == 0


def test_a_listing_is_compared_with_the_last_written_contents(node, table):
    table.write_all()
    assert table.is_as_written(table.look())
    node.run("nft flush chain inet ours input")
    assert not table.is_as_written(table.look())


@pytest.mark.parametrize(("sets", "found"), [(None, {WEB}), (["ports"], {WEB}), (["others"], ())])
def test_a_listing_can_be_limited_to_the_elements_of_some_sets(table, sets, found):
    table.write_all()
    listing = table.look(sets)
    assert listing.definitions == table.look().definitions
    assert listing.elements_of(["ports"]) == set(found)


def test_the_rules_of_a_table_are_rewritten_after_forget(table, contents, printed):
    table.write_all()
    contents.chain(x.UDP + x.verdict(x.DROP))
    assert table.put_right().count == 0
    table.forget()
    assert not table.is_known()
    assert table.put_right().count > 0
    assert "drop" in printed()


def test_if_the_kernel_rejects_the_optional_part_the_table_is_written_without_it(
    node, table, contents, printed, refused
):
    contents.optional = x.expression("no_such_expression")
    table.write_all()
    assert not table.is_complete
    assert "elements = { 80 }" in printed()
    # The optional part isn't tried again.
    node.run("nft flush ruleset")
    refused(1)
    table.write_all()
    assert table.is_known()
    assert "elements = { 80 }" in printed()


@pytest.mark.parametrize("code", [errno.ENOMEM, errno.EPERM, errno.ETIMEDOUT])
def test_an_error_about_memory_permission_or_time_keeps_the_optional_part(table, refused, code):
    refused(0, code=code)
    with pytest.raises(NftablesError, match=os.strerror(code)):
        table.write_all()
    assert table.is_complete
    table.write_all()
    assert table.is_complete


def test_after_a_lost_reply_the_table_is_compared_with_the_kernel(table, contents, monkeypatch):
    table.write_all()
    with monkeypatch.context() as memory:
        memory.setattr(Requests, "_receive", no_buffers)
        with pytest.raises(NftablesError, match="buffer"):
            table.write(table.steps((), {DNS}))
    assert table.repair() == Repair(1, removed={DNS})
    assert table.is_known()


def test_the_next_call_reports_a_repair_with_a_lost_reply(node, table, contents, commits_fail):
    table.write_all()
    node.run("nft flush ruleset")
    contents.elements = {WEB, DNS}
    with commits_fail(itertools.repeat(UNHEARD)), pytest.raises(NftablesError, match="buffer"):
        table.change((), {DNS})
    contents.elements = {WEB}
    assert table.put_right() == Repair(1, {DNS}, {WEB, DNS}, earlier={WEB, DNS})
    assert table.repair() == Repair()
    node.run("nft add chain inet ours more")
    assert table.repair() == Repair(1, set(), {WEB})


def test_the_next_call_reports_repairs_before_a_rejected_retry(node, table, contents, commits_fail):
    contents.elements = {WEB, DNS}
    table.write_all()
    node.run("nft delete element inet ours ports { 53 }")
    refused = NftablesError(errno.ENOMEM, 0)
    with commits_fail(iter([UNHEARD, refused])), pytest.raises(NftablesError, match="memory"):
        table.repair()
    assert table.repair() == Repair(added={DNS}, earlier={DNS})
    assert table.repair() == Repair()


def test_a_repair_by_the_first_of_several_transactions_is_reported_later(node, table, monkeypatch):
    table.write_all()
    node.run("nft 'add element inet ours ports { 53 }; delete element inet ours ports { 80 }'")
    commit, calls = Ruleset.commit, itertools.count()

    def accept_the_first_part(ruleset, messages):
        if (call := next(calls)) != 1:
            raise NftablesError(errno.ENOMEM if call else errno.EMSGSIZE, 0)
        commit(ruleset, messages)

    with monkeypatch.context() as short:
        short.setattr(Ruleset, "commit", accept_the_first_part)
        with pytest.raises(NftablesError, match="memory"):
            table.repair()
    assert table.repair() == Repair(1, removed={DNS}, added={WEB})


def test_a_table_that_another_program_owns_is_a_conflict(node, table):
    with closing(OwnedTable("ours", lambda _writer: None)) as owned:
        owned.put_right()
        for look in (table.read, table.put_right):
            with pytest.raises(SteeringConflict) as caught:
                look()
    assert str(caught.value) == (
        "cannot use the nftables table inet ours: another program owns it "
        "(stop that program, or run with --steering=iptables)"
    )


def test_removing_a_nonexistent_table_changes_nothing(table):
    with closing(NftTable("other")) as other:
        table.write_all()
        table.remove()
        assert not table.is_known()
        other.settle()
        generation = other._ruleset.generation()
        table.remove()
        assert other._ruleset.generation() == generation


@pytest.mark.parametrize("is_paired", [False, True])
def test_an_event_flood_of_another_table_is_ignored_only_if_the_tables_are_paired(table, is_paired):
    with closing(NftTable("other")) as other:
        if is_paired:
            table.pair_with(other)
        table.write_all()
        writer = other.writer()
        writer.create()
        for number in range(20_000):
            writer.add_chain(f"chain-{number}")
        other.write([writer.messages])
        assert table.is_known() == is_paired


def test_chains_are_added_and_deleted_in_listing_order(table, printed):
    def adding(name):
        writer = table.writer()
        writer.add_chain(name)
        for verdict in (x.ACCEPT, x.DROP):
            writer.add_rule(name, x.UDP + x.verdict(verdict))
        return [writer.messages]

    deletion = table.writer()
    deletion.flush_chain("first")
    deletion.delete_chain("first")
    table.write_all()
    table.change_chains(adding("first"), gone=[], new=["first"])
    table.change_chains(adding("second"), gone=[], new=["second"])
    table.change_chains([deletion.messages, *adding("third")], gone=["first"], new=["third"])
    assert table.is_known()
    assert [name in printed() for name in ("first", "second", "third")] == [False, True, True]
    # A full check finds no difference from the assumed contents.
    assert table.put_right() == Repair()


def test_after_a_rejected_chain_change_the_tables_contents_stay_known(table, printed):
    table.write_all()
    before = printed()
    deletion = table.writer()
    deletion.delete_chain("missing")
    with pytest.raises(NftablesError):
        table.change_chains([deletion.messages], gone=["missing"], new=[])
    assert table.is_known()
    assert printed() == before


def test_a_table_watch_that_fails_to_start_leaks_no_socket(node, monkeypatch):
    with Ruleset() as ruleset:
        monkeypatch.setattr(Requests, "_receive", no_buffers)
        os.close(free := os.dup(0))
        # The traceback's frames keep open descriptors alive.
        with pytest.raises(SteeringError) as _kept:
            TableWatch(ruleset, "ours")
        os.close(next_free := os.dup(0))
        assert next_free == free

"""Writes rules by python-iptables: the only module that imports it.

What is much goes by ``iptables-restore`` where there is one; the edit is the same one, written as
text (restore). Either way 10,000 Services take some 0.15 s of our CPU.

Rule 1: a change is one refresh, some edits and one commit, all under the xtables lock, so that
it is in force as a whole or not at all.
Rule 2: what a writer without the lock does between refresh and commit makes the kernel answer
EAGAIN; then the change is made again from what is in force now.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
from collections.abc import Callable
from typing import Any

from ...errors import SteeringError
from ..names import ChainNames
from .blob import Entry, read_entry
from .form import Form, FormError, JumpForm, PortForm
from .lock import xtables_lock
from .restore import Restore, TextEdit
from .rules import PREFIX, PROTOCOLS, Jump, Match, NatRule, Rule, refusal

# How often a change is made anew when others write without the lock.
ATTEMPTS = 10
# Guard rules are made at 0.5 ms each; more than a node ever has of them isn't kept.
EXPECTED_MAX = 4096
# python-iptables looks through these for a chain of a jump's name, and so would create them.
_UNTOUCHED = ("mangle", "raw", "security")
# Of xt_entry_target: where the name stands in it, and how long it may be, with its NUL.
_TARGET_NAME = 2
_TARGET_NAME_SIZE = 29


class Writer:
    """Edits the tables of one IP family.

    Args:
        version: 4 or 6.
        names: What our chains are called in the kernel.

    Raises:
        SteeringError: python-iptables or a library of iptables is missing.
    """

    def __init__(self, version: int, names: ChainNames) -> None:
        self.names = names
        try:
            import iptc
        except (ImportError, AttributeError, OSError) as exc:
            raise SteeringError(
                f"cannot steer by iptables: python-iptables doesn't load: {exc}",
                hint="pip install .[iptables] in the checkout, or run with --steering=none",
            ) from exc
        self._iptc = iptc
        self.refused: type[Exception] = iptc.IPTCError
        """What the edits raise when libiptc won't."""
        self._table_type = iptc.Table6 if version == 6 else iptc.Table
        self._rule_type = iptc.Rule6 if version == 6 else iptc.Rule
        self._table_type.existing_table_names.update(dict.fromkeys(_UNTOUCHED, False))
        self._version = version
        self._forms: dict[tuple[str, bool], Form] = {}
        self._expected: dict[Rule, Entry] = {}
        self._refusals: list[PortForm] | None = None
        self._jump_forms: dict[str, JumpForm] = {}
        self._jump_target = b""
        self._restore = Restore(version)

    def change(self, table: str, edit: Callable[[Edit], bool], *, is_much: bool = False) -> bool:
        """Make one change of a table under the lock.

        Args:
            table: ``nat`` or ``filter``.
            edit: Reads what is in force and edits it; called again after EAGAIN. It returns
                False when there is nothing to do.
            is_much: Whether ``iptables-restore`` should do it, where there is one.

        Returns:
            What ``edit`` returned.

        Raises:
            SteeringError: The kernel refused, or the lock wasn't free in time.
        """
        with xtables_lock() as lock:
            if is_much and self._restore.is_there:
                text = TextEdit(table, self.names)
                if not edit(text):
                    return False
                # Whatever it may have against it, python-iptables will say it better.
                if self._restore.run(str(text), lock):
                    return True
            for attempt in itertools.count(1):
                try:
                    handle = self._table_type(table, autocommit=False)
                    handle.refresh()
                    if not edit(TableEdit(handle, self)):
                        return False
                    handle.commit()
                    return True
                except self._iptc.IPTCError as exc:
                    if "temporarily unavailable" not in str(exc) or attempt == ATTEMPTS:
                        raise _explained(table, str(exc)) from exc
        raise AssertionError("the loop ends by return or raise")

    def form(self, protocol: str, *, is_dnat: bool) -> Form:
        """Return the form of a kind of nat rule, learned when first asked for.

        Raises:
            SteeringError: The installed iptables makes rules that we don't understand.
        """
        kind = (protocol, is_dnat)
        if kind not in self._forms:
            try:
                self._forms[kind] = Form(
                    self._nat_bytes, protocol, version=self._version, is_dnat=is_dnat
                )
            except (FormError, self._iptc.XTablesError) as exc:
                raise SteeringError(f"cannot make rules by python-iptables: {exc}") from exc
        return self._forms[kind]

    def read_refusal(self, raw: bytes) -> int | None:
        """Return the refuse port if an entry is a rule of the guard that refuses there."""
        if self._refusals is None:
            self._refusals = [self._refusal_form(protocol) for protocol in PROTOCOLS]
        ports = (form.read(raw) for form in self._refusals)
        return next((port for port in ports if port is not None), None)

    def read_nat(self, raw: bytes) -> NatRule | None:
        """Return the nat rule that an entry is, or None if we would never write it."""
        for protocol in PROTOCOLS:
            # There is no DNAT in our IPv6 rules: REDIRECT works without an address there.
            for is_dnat in (False, True) if self._version == 4 else (False,):
                if rule := self.form(protocol, is_dnat=is_dnat).read(raw):
                    return rule
        return None

    def write_nat(self, rule: NatRule) -> bytes:
        """Return a nat rule as an entry."""
        return self.form(rule.protocol, is_dnat=bool(rule.to_ip)).write(rule)

    def write_jump(self, jump: Jump) -> bytes:
        """Return a jump as an entry; libiptc puts the place of its chain in."""
        condition = self._jump_form(jump.protocol).write(jump)
        target = bytearray(self._jump_target)
        name = self.names.in_kernel(jump.chain).encode().ljust(_TARGET_NAME_SIZE, b"\0")
        target[_TARGET_NAME : _TARGET_NAME + _TARGET_NAME_SIZE] = name
        return condition + bytes(target)

    def read_jump(self, entry: Entry) -> Jump | None:
        """Return the jump within our tree that an entry is, or None if it is none."""
        if not entry.verdict.startswith(PREFIX):
            return None
        jumps = (self._jump_form(p).read(entry.condition, entry.verdict) for p in ("", *PROTOCOLS))
        return next((jump for jump in jumps if jump is not None), None)

    def line_key(self, line: NatRule | Jump) -> bytes:
        """Return the bytes that tell a line from others: those of :attr:`Entry.key`."""
        if isinstance(line, Jump):
            return self._jump_form(line.protocol).write(line) + line.chain.encode()
        return self.write_nat(line)

    def line_bytes(self, line: NatRule | Jump | Rule) -> bytes:
        """Return any line of a chain of ours as an entry."""
        if isinstance(line, NatRule):
            return self.write_nat(line)
        return self.write_jump(line) if isinstance(line, Jump) else self.rule_bytes(line)

    def _jump_form(self, protocol: str) -> JumpForm:
        """Return the form of a kind of jump, learned when first asked for.

        Raises:
            SteeringError: The installed iptables makes rules that we don't understand.
        """
        if protocol not in self._jump_forms:
            try:
                self._jump_forms[protocol] = JumpForm(
                    self._jump_condition, protocol, version=self._version
                )
            except (FormError, self._iptc.XTablesError) as exc:
                raise SteeringError(f"cannot make rules by python-iptables: {exc}") from exc
        return self._jump_forms[protocol]

    def _jump_condition(self, jump: Jump) -> bytes:
        made = self._rule_type()
        made.dst = f"{jump.ip}/{jump.bits}"
        if jump.protocol:
            made.protocol = jump.protocol
            made.create_match(jump.protocol).dport = f"{jump.first_port}:{jump.last_port}"
        # python-iptables only makes jumps to chains that are there.
        made.create_target("ACCEPT")
        entry = read_entry(self._finished(made), self._version, {})
        self._jump_target = entry.raw[entry.target_offset :]
        return entry.condition

    def rule_bytes(self, rule: Rule) -> bytes:
        """Return a rule of the guard, or a jump, as an entry."""
        rule = rule._replace(target=self.names.in_kernel(rule.target))
        made = self._rule_type()
        if rule.protocol:
            made.protocol = rule.protocol
        for match in rule.matches:
            words = ["!"] * match.is_inverted + match.value.split()
            extension = made.create_match(match.name)
            if match.option:
                extension.set_parameter(match.option, words)
            for switch in match.switches:
                extension.set_parameter(switch, [])
        target = made.create_target(rule.target)
        if rule.reject_with:
            target.reject_with = rule.reject_with
        return self._finished(made)

    def knows_sockets(self) -> bool:
        """Return whether the installed iptables has the match ``socket``."""
        try:
            self.rule_bytes(Rule("ACCEPT", (Match("socket", switches=("transparent",)),), "tcp"))
        except self._iptc.XTablesError:
            return False
        return True

    def expected(self, rule: Rule) -> Entry:
        """Return a rule of the guard, or a jump, as the kernel will show it."""
        if rule not in self._expected:
            if len(self._expected) > EXPECTED_MAX:
                self._expected.clear()
            # python-iptables only makes jumps to chains that are there.
            stand_in = rule if rule.reject_with else rule._replace(target="ACCEPT")
            entry = read_entry(self.rule_bytes(stand_in), self._version, {})
            self._expected[rule] = (
                entry if rule.reject_with else entry._replace(verdict=rule.target)
            )
        return self._expected[rule]

    def _refusal_form(self, protocol: str) -> PortForm:
        def build(port: int) -> bytes:
            return self.expected(refusal(protocol, port, is_ipv6=self._version == 6)).raw

        return PortForm(build)

    def _nat_bytes(self, rule: NatRule) -> bytes:
        return self._finished(self._nat_rule(rule))

    def _nat_rule(self, rule: NatRule) -> Any:
        made = self._rule_type()
        made.dst = f"{rule.ip}/{32 if self._version == 4 else 128}"
        made.protocol = rule.protocol
        made.create_match(rule.protocol).dport = str(rule.port)
        if rule.to_ip:
            made.create_target("DNAT").to_destination = f"{rule.to_ip}:{rule.to_port}"
        else:
            made.create_target("REDIRECT").to_ports = str(rule.to_port)
        made.final_check()
        return made

    def _finished(self, made: Any) -> bytes:
        # Without its final check a REDIRECT has no range, and the kernel answers EINVAL.
        made.final_check()
        return bytes(made.rule)


class TableEdit:
    """The edits of one change; they are in force after its commit.

    Args:
        handle: python-iptables' table, just refreshed.
        writer: Makes the entries.
    """

    def __init__(self, handle: Any, writer: Writer) -> None:
        self._handle = handle
        self._writer = writer

    def make_chain(self, chain: str) -> None:
        """Make a chain unless it is there."""
        if not self._handle.is_chain(self._named(chain)):
            self._handle.create_chain(self._named(chain))

    def flush(self, chain: str) -> None:
        """Remove all rules of a chain."""
        self._handle.flush_entries(self._named(chain))

    def remove_chain(self, chain: str) -> None:
        """Remove an empty chain to which nothing jumps."""
        self._handle.delete_chain(self._named(chain))

    def drop_chain(self, chain: str) -> None:
        """Remove an empty chain, unless a rule of others jumps to it."""
        with contextlib.suppress(self._writer.refused):
            self.remove_chain(chain)

    def append(self, chain: str, line: NatRule | Jump | Rule) -> None:
        """Add a line to the end of a chain; where a jump leads must be there."""
        self._handle.append_entry(self._named(chain), _buffer(self._writer.line_bytes(line)))

    def insert_first(self, chain: str, rule: Rule) -> None:
        """Put a rule before all others of a chain."""
        raw = self._writer.rule_bytes(rule)
        self._handle.insert_entry(self._named(chain), _buffer(raw), 0)

    def remove_number(self, chain: str, index: int) -> None:
        """Remove the entry at an index, counted from 0."""
        library = self._handle._iptc  # noqa: SLF001 - python-iptables has no method for it.
        handle = self._handle._handle  # noqa: SLF001
        name = self._named(chain)
        if library.iptc_delete_num_entry(name.encode(), index, handle) != 1:
            raise SteeringError(f"cannot remove rule {index + 1} of {name}")

    def _named(self, chain: str) -> str:
        return self._writer.names.in_kernel(chain)


Edit = TableEdit | TextEdit


def _buffer(raw: bytes) -> Any:
    return (ctypes.c_ubyte * len(raw)).from_buffer_copy(raw)


def _explained(table: str, text: str) -> SteeringError:
    # libiptc's own words for EPERM: "Permission denied (you must be root)".
    hint = "grant NET_ADMIN and NET_RAW, or run as root" if "ermission denied" in text else ""
    return SteeringError(f"cannot change the iptables table {table}: {text}", hint=hint)

"""Applies a few edits to a legacy table with python-iptables, which no other module imports.

Many edits are passed to ``iptables-restore`` instead. Here, each edit takes 0.5 ms, and the table
is read and committed once for all edits.

Rule 1: edits are lines for rules that this proxy writes, as ``iptables-restore`` accepts them.
Rule 2: all edits are applied by one commit, or none.
"""

from __future__ import annotations

import os
import shlex
import sys
import sysconfig
from collections import deque
from collections.abc import Sequence
from typing import Any

from ...errors import SteeringError

# Up to this number of edits, plus one per _RULES_PER_EDIT rules of the table, this module is no
# slower than iptables-restore, which takes 2 ms to start and 0.5 µs more per rule. Source:
# docs/adr/0023.
_FEW = 4
_RULES_PER_EDIT = 1000
# Tables that must not be used: python-iptables searches them for the chain of a jump, which would
# create them.
_UNTOUCHED = ("mangle", "raw", "security")


def are_few(edits: int, rules: int) -> bool:
    """Return whether this module applies that many edits no slower than ``iptables-restore``."""
    return edits <= _FEW + rules // _RULES_PER_EDIT


def _import_iptc() -> Any:
    """Import and return python-iptables; keep it from running programs to find its library.

    It searches with ldconfig, gcc and ld unless the folder is set, and loads setuptools if that
    replaces distutils: this takes 0.36 s of CPU time instead of 0.07 s. Source: iptc/util.py.
    """
    sys.modules.setdefault("distutils", None)  # type: ignore[arg-type]
    os.environ.setdefault("IPTABLES_LIBDIR", sysconfig.get_path("platlib"))
    import iptc

    return iptc


class SmallEdits:
    """An editor for the tables of one IP family.

    Raises:
        SteeringError: python-iptables or a library of iptables is missing.
    """

    def __init__(self, version: int) -> None:
        try:
            iptc = _import_iptc()
        except (ImportError, AttributeError, OSError) as exc:
            raise SteeringError(
                f"cannot steer by iptables: python-iptables doesn't load: {exc}",
                hint="pip install .[iptables] in the checkout, or run with --steering=none",
            ) from exc
        self._iptc = iptc
        self._table_type = iptc.Table6 if version == 6 else iptc.Table
        self._rule_type = iptc.Rule6 if version == 6 else iptc.Rule
        self._table_type.existing_table_names.update(dict.fromkeys(_UNTOUCHED, False))

    def make(self, table: str, edits: Sequence[str]) -> None:
        """Apply edits in one commit; the caller holds the xtables lock.

        Raises:
            SteeringError: An edit was refused; nothing has changed.
        """
        try:
            handle = self._table_type(table, autocommit=False)
            handle.refresh()
            for edit in edits:
                self._make(handle, edit)
            handle.commit()
        except (self._iptc.IPTCError, self._iptc.XTablesError, ValueError) as exc:
            raise SteeringError(f"cannot change the iptables table {table}: {exc}") from exc

    def _make(self, handle: Any, edit: str) -> None:
        command, *words = shlex.split(edit)
        match command:
            case "-A":
                self._iptc.Chain(handle, words[0]).append_rule(self._rule(words[1:]))
            case "-F":
                self._iptc.Chain(handle, words[0]).flush()
            case "-X":
                handle.delete_chain(words[0])
            case new if new.startswith(":"):
                handle.create_chain(new[1:])
            case other:
                raise ValueError(f"no such edit: {other}")

    def _rule(self, line: Sequence[str]) -> Any:
        rule, words = self._rule_type(), deque(line)
        extension: Any = None
        while words:
            # python-iptables expects the "!" of a negated option as the option's first value.
            values = [words.popleft()] if words[0] == "!" else []
            option = words.popleft()
            while words and words[0] != "!" and not words[0].startswith("-"):
                values.append(words.popleft())
            match option:
                case "-d":
                    rule.dst = values[0]
                case "-p":
                    rule.protocol = values[0]
                case "-m":
                    extension = rule.create_match(values[0])
                case "-j":
                    extension = rule.create_target(values[0])
                case _:
                    extension.set_parameter(option.removeprefix("--"), values)
        return rule

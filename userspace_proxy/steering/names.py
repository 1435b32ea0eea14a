"""Names that distinguish the rules and locks of different proxies on a node.

    --service-proxy-name        chains                 lock                       nftables table
    (none)                      UPROXY-PRE, …          userspace-proxy            the lock's name
    canary                      UPROXY-PRE-canary, …   userspace-proxy/canary     with a hyphen for
    a-very-long-name-for-it     UPROXY-PRE-a-very~…    userspace-proxy/a-very~…   / and / for ~

Further tables have a suffix: ``userspace-proxy/replies``, ``userspace-proxy/replies-canary``. Names
are unambiguous: a suffix contains no hyphen, and a label no slash.

Chains of the iptables trees have six characters after the prefix, directly followed by the label
(``UPROXY-Od3f9acanary``), because there is no room for a hyphen.

All other modules use the chain names in the first row; the proxy's label is added when names are
sent to the kernel, and removed when they are read.

Rule 1: a proxy treats the chains and tables of other proxies like those of other programs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import NamedTuple

from ..filters.chains import ChainTable
from ..kernel.nf_tables import list_tables

# The beginning of each chain's name. Outside the trees, a word in capitals follows, and for a named
# proxy, a hyphen and the label.
PREFIX = "UPROXY-"
# The maximum length of a label: the kernel allows 28 characters, which include the prefix and six
# more characters.
LABEL_MAX = 15
_READABLE = 6
_HASH_DIGITS = 8
# A service-proxy-name is the value of a Kubernetes label, which never contains a tilde, so only
# labels with a hash contain one.
_AS_IT_IS = re.compile(
    rf"[A-Za-z0-9._-]{{0,{LABEL_MAX}}}|[A-Za-z0-9._-]{{{_READABLE}}}~[0-9a-f]{{{_HASH_DIGITS}}}"
)
_UNREADABLE = re.compile(r"[^A-Za-z0-9._-]")
_TABLE = "userspace-proxy"
# Matches the name of a table of any kind, because tables of another version may exist. Neither
# kinds nor labels are empty.
_OWN_TABLE = re.compile(rf"{_TABLE}(?:/(?P<kind>[^-]*))?(?:-(?P<label>.*))?", re.DOTALL)
_NUMBERED = 1 << 24
_CHAIN = re.compile(rf"(?P<own>{PREFIX}[A-Z]+)(?:-(?P<label>.+))?")
_TREE_CHAIN = re.compile(rf"(?P<own>{PREFIX}[O-R][0-9A-Za-z][0-9a-z]{{4}})(?P<label>.*)")


def proxy_label(proxy_name: str) -> str:
    """Return a short form of a proxy's name: the name itself, or its beginning with a hash.

    Args:
        proxy_name: The ``--service-proxy-name``; empty without one. A label is returned unchanged.
    """
    if _AS_IT_IS.fullmatch(proxy_name):
        return proxy_name
    digest = hashlib.sha256(proxy_name.encode("utf-8", "surrogatepass")).hexdigest()
    readable = _UNREADABLE.sub("_", proxy_name)[:_READABLE].ljust(_READABLE, "_")
    return f"{readable}~{digest[:_HASH_DIGITS]}"


def owner_number(proxy_name: str) -> int:
    """Return a number for a proxy, for use where a name doesn't fit; 0 without a name."""
    label = proxy_label(proxy_name)
    if not label:
        return 0
    # The result is higher than the route metrics that people and daemons usually choose (< 10,000),
    # so it identifies the proxy's routes.
    return _NUMBERED | int.from_bytes(hashlib.sha256(label.encode()).digest()[:3], "big")


class OwnTable(NamedTuple):
    """The parts of the name of a userspace-proxy's nftables table."""

    kind: str
    """``replies``, ``paths`` and so on; empty for the steering table."""
    label: str
    """The proxy's label; empty for a proxy without a name."""

    @property
    def name(self) -> str:
        """The name, as :func:`read_own_table` parses it."""
        stem = f"{_TABLE}/{self.kind}" if self.kind else _TABLE
        # nft allows no tilde in a name. A label has no slash, so the name stays unambiguous.
        return f"{stem}-{self.label.replace('~', '/')}" if self.label else stem


def read_own_table(name: str) -> OwnTable | None:
    """Parse the name of a userspace-proxy table of any version; None if it isn't one."""
    match = _OWN_TABLE.fullmatch(name)
    if match is None:
        return None
    return OwnTable(match["kind"] or "", (match["label"] or "").replace("/", "~"))


class TableNames:
    """The names of one kind of nftables table, one per proxy."""

    def __init__(self, kind: str = "") -> None:
        self._kind = kind

    def of(self, proxy_name: str) -> str:
        return OwnTable(self._kind, proxy_label(proxy_name)).name

    def label_in(self, table: str) -> str | None:
        """Return the label of a table's proxy; None unless the table is of this kind."""
        own = read_own_table(table)
        # A name that only begins like a name of this kind has no label.
        return own.label if own is not None and self.of(own.label) == table else None

    def labels_here(self) -> list[str]:
        """Return the sorted labels of proxies with such a table here, or raise a SteeringError."""
        return sorted(_labels_in(list_tables(), self))


STEERING_TABLES = TableNames()
KERNEL_PATH_TABLES = TableNames("paths")
GUARD_TABLES = TableNames("local")
REPLY_TABLES = TableNames("replies")
CONNTRACK_HOLD_TABLES = TableNames("held")
UNTRACKED_TABLES = TableNames("untracked")


def nftables_labels_here() -> list[str]:
    """Return the labels of all proxies with tables of ``nftables`` steering here, sorted.

    Sometimes only the kernel path's table exists: it is written first, and the process may be
    killed after that.

    Raises:
        SteeringError: The kernel refused to list the tables.
    """
    return sorted(_labels_in(list_tables(), STEERING_TABLES, KERNEL_PATH_TABLES))


def _labels_in(tables: Iterable[str], *kinds: TableNames) -> set[str]:
    found = (kind.label_in(table) for table in tables for kind in kinds)
    return {label for label in found if label is not None}


def is_own_table(table: ChainTable) -> bool:
    """Return whether a table belongs to any userspace-proxy."""
    is_family = table.family in ("inet", "bridge") and not table.is_legacy
    return is_family and read_own_table(table.name) is not None


def label_of(chain: str) -> str | None:
    """Return the label in a chain's name in the kernel; None for other programs' chains."""
    match = _match(chain)
    return None if match is None else match["label"] or ""


class ChainNames:
    """The names of one proxy's chains."""

    def __init__(self, proxy_name: str = "") -> None:
        self.label = proxy_label(proxy_name)

    def in_kernel(self, name: str) -> str:
        """Return a chain's name in the kernel; names of other programs' chains are unchanged."""
        if self.label and name.startswith(PREFIX):
            is_of_tree = _TREE_CHAIN.fullmatch(name) is not None
            return f"{name}{self.label}" if is_of_tree else f"{name}-{self.label}"
        return name

    def known(self, name: str) -> str:
        """Return a chain's name in this program; names of other programs' chains are unchanged.

        The name of another proxy's chain is put in brackets, so that the chain counts as a chain of
        another program.
        """
        match = _match(name)
        if match is None:
            return name
        if (match["label"] or "") != self.label:
            return f"({name})"
        return match["own"]


def _match(chain: str) -> re.Match[str] | None:
    return _TREE_CHAIN.fullmatch(chain) or _CHAIN.fullmatch(chain)

"""Names that separate the rules and the lock of one proxy from those of another on the node.

    --service-proxy-name        chains                 lock                       nftables table
    (none)                      UPROXY-PRE, …          userspace-proxy            the lock's name
    canary                      UPROXY-PRE-canary, …   userspace-proxy/canary     with a hyphen for
    a-very-long-name-for-it     UPROXY-PRE-a-very~…    userspace-proxy/a-very~…   / and / for ~

The table that catches replies to client addresses is ``userspace-proxy/replies``, and
``userspace-proxy/replies-canary`` and so on: no label of a table above has a slash there.

Chains of the iptables tree have six characters after the prefix, directly followed by the
label: ``UPROXY-Od3f9acanary``, as there is no space for a hyphen.

All other modules use the chain names of the first line; the proxy's label is added where names
are sent to the kernel, and removed where they are read from it.

Rule 1: chains and tables of another proxy don't belong to this one: they are neither read, nor
repaired, nor removed.
"""

from __future__ import annotations

import hashlib
import re

# Ours are this and a word of capital letters; a label follows after a second hyphen.
PREFIX = "UPROXY-"
# The kernel takes 28 characters: the prefix, five letters, a hyphen, and so many.
LABEL_MAX = 15
_READABLE = 6
_HASH_DIGITS = 8
# A service-proxy-name is a label's value, which never has a tilde.
_AS_IT_IS = re.compile(
    rf"[A-Za-z0-9._-]{{0,{LABEL_MAX}}}|[A-Za-z0-9._-]{{{_READABLE}}}~[0-9a-f]{{{_HASH_DIGITS}}}"
)
_UNREADABLE = re.compile(r"[^A-Za-z0-9._-]")
TABLE = "userspace-proxy"
GUARD = f"{TABLE}/local"
REPLY_TABLE = f"{TABLE}/replies"
CONNTRACK_HOLD_TABLE = f"{TABLE}/held"
UNTRACKED_TABLE = f"{TABLE}/untracked"
_NUMBERED = 1 << 24
_CHAIN = re.compile(rf"(?P<own>{PREFIX}[A-Z]+)(?:-(?P<label>.+))?")
_TREE_CHAIN = re.compile(rf"(?P<own>{PREFIX}[OP][0-9A-Za-z][0-9a-z]{{4}})(?P<label>.*)")


def proxy_label(proxy_name: str) -> str:
    """Return what stands for a proxy's name where there is little room.

    Args:
        proxy_name: Its ``--service-proxy-name``, or a label; empty without one.

    Returns:
        The name itself if it is short; else its beginning and a hash. Empty for no name. A
        label's label is itself.
    """
    if _AS_IT_IS.fullmatch(proxy_name):
        return proxy_name
    digest = hashlib.sha256(proxy_name.encode("utf-8", "surrogatepass")).hexdigest()
    readable = _UNREADABLE.sub("_", proxy_name)[:_READABLE].ljust(_READABLE, "_")
    return f"{readable}~{digest[:_HASH_DIGITS]}"


def label_of(chain: str) -> str | None:
    """Return the label in a chain's name in the kernel, or None if the chain isn't ours."""
    match = _match(chain)
    return None if match is None else match["label"] or ""


def _match(chain: str) -> re.Match[str] | None:
    return _TREE_CHAIN.fullmatch(chain) or _CHAIN.fullmatch(chain)


def table_name(proxy_name: str) -> str:
    """Return the name of a proxy's nftables table.

    Args:
        proxy_name: As for :func:`proxy_label`.
    """
    return _with_label(TABLE, proxy_name)


def guard_name(proxy_name: str) -> str:
    """Return the name of a proxy's nftables table for local steering.

    It is no name of :func:`table_name`: a label has no slash.

    Args:
        proxy_name: As for :func:`proxy_label`.
    """
    return _with_label(GUARD, proxy_name)


def label_of_guard(table: str) -> str | None:
    """Return the label of the proxy whose table for local steering this is, or None."""
    return _label_after(GUARD, table)


def owner_number(proxy_name: str) -> int:
    """Return what stands for a proxy's name where only a number fits: 0 without a name.

    Args:
        proxy_name: As for :func:`proxy_label`.
    """
    label = proxy_label(proxy_name)
    if not label:
        return 0
    # Above the metrics that people and daemons give (below 10,000, as a rule).
    return _NUMBERED | int.from_bytes(hashlib.sha256(label.encode()).digest()[:3], "big")


def label_of_table(table: str) -> str | None:
    """Return the label of the proxy whose nftables table this is, or None if it isn't ours."""
    return _label_after(TABLE, table)


def is_our_table(table: str) -> bool:
    """Return whether an nftables table is one of a proxy of ours, whatever its name.

    Args:
        table: Family and name, as ``inet userspace-proxy``.
    """
    family, _, name = table.partition(" ")
    is_named_so = name == TABLE or name.startswith((f"{TABLE}-", f"{TABLE}/"))
    return family in ("inet", "bridge") and is_named_so


def reply_table_name(proxy_name: str) -> str:
    """Return the name of the nftables table that catches a proxy's answers.

    Args:
        proxy_name: As for :func:`proxy_label`.
    """
    return _with_label(REPLY_TABLE, proxy_name)


def conntrack_hold_table(proxy_name: str) -> str:
    """Return the name of the nftables table that keeps the kernel tracking for a proxy.

    Args:
        proxy_name: As for :func:`proxy_label`.
    """
    return _with_label(CONNTRACK_HOLD_TABLE, proxy_name)


def untracked_table_name(proxy_name: str) -> str:
    """Return the name of the nftables table that keeps a proxy's status ports untracked.

    Args:
        proxy_name: As for :func:`proxy_label`.
    """
    return _with_label(UNTRACKED_TABLE, proxy_name)


def label_of_reply_table(table: str) -> str | None:
    """Return the label of the proxy whose answers this table catches, or None if it is none."""
    return _label_after(REPLY_TABLE, table)


def _with_label(stem: str, proxy_name: str) -> str:
    # nft takes no tilde in a name; a label has no slash, so nothing gets ambiguous.
    label = proxy_label(proxy_name).replace("~", "/")
    return f"{stem}-{label}" if label else stem


def _label_after(stem: str, table: str) -> str | None:
    if table == stem:
        return ""
    label = table.removeprefix(f"{stem}-").replace("/", "~")
    return label if _with_label(stem, label) == table else None


class ChainNames:
    """The chains' names of one proxy.

    Args:
        proxy_name: As for :func:`proxy_label`.
    """

    def __init__(self, proxy_name: str = "") -> None:
        self.label = proxy_label(proxy_name)

    def in_kernel(self, name: str) -> str:
        """Return a name as the kernel knows it; those that aren't of ours stay as they are."""
        if self.label and name.startswith(PREFIX):
            is_of_tree = _TREE_CHAIN.fullmatch(name) is not None
            return f"{name}{self.label}" if is_of_tree else f"{name}-{self.label}"
        return name

    def known(self, name: str) -> str:
        """Return a name of the kernel's as we know it.

        A chain of another proxy of ours comes in brackets: like none of ours.
        """
        match = _match(name)
        if match is None:
            return name
        if (match["label"] or "") != self.label:
            return f"({name})"
        return match["own"]

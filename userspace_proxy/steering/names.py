"""What tells the rules and the lock of one proxy from those of another on the same node.

    --service-proxy-name        chains                 lock                       nftables table
    (none)                      UPROXY-PRE, …          userspace-proxy            the lock's name
    canary                      UPROXY-PRE-canary, …   userspace-proxy/canary     with a hyphen for
    a-very-long-name-for-it     UPROXY-PRE-a-very~…    userspace-proxy/a-very~…   / and / for ~

Everything but this module knows the chains by their names in the first line; the proxy's label
is put on where they go to the kernel, and taken off where they come from there.

Rule 1: chains and tables of another proxy are nobody's of ours: they aren't seen, repaired or
removed.
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
_CHAIN = re.compile(rf"(?P<own>{PREFIX}[A-Z]+)(?:-(?P<label>.+))?")


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
    match = _CHAIN.fullmatch(chain)
    return None if match is None else match["label"] or ""


def table_name(proxy_name: str) -> str:
    """Return the name of a proxy's nftables table.

    Args:
        proxy_name: As for :func:`proxy_label`.
    """
    # nft takes no tilde in a name; a label has no slash, so nothing gets ambiguous.
    label = proxy_label(proxy_name).replace("~", "/")
    return f"{TABLE}-{label}" if label else TABLE


def label_of_table(table: str) -> str | None:
    """Return the label of the proxy whose nftables table this is, or None if it isn't ours."""
    if table == TABLE:
        return ""
    label = table.removeprefix(f"{TABLE}-").replace("/", "~")
    return label if table_name(label) == table else None


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
            return f"{name}-{self.label}"
        return name

    def known(self, name: str) -> str:
        """Return a name of the kernel's as we know it.

        A chain of another proxy of ours comes in brackets: like none of ours.
        """
        label = label_of(name)
        if label is None:
            return name
        if label != self.label:
            return f"({name})"
        return name.removesuffix(f"-{label}") if label else name

"""Reads the nftables ruleset of a network namespace, and changes it in transactions.

    messages of one commit ── begin … end ──▶ kernel: all of them, or none

Source: net/netfilter/nfnetlink.c, nfnetlink_rcv_batch().
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Self, TypeVar

from ...errors import SteeringError
from ..netlink import Requests, explained
from ..netlink.messages import Message, number_in, read_all, read_messages, request
from ..netlink.sockets import NETLINK_NETFILTER
from . import reader
from .reader import ListedChain, ListedElement, ListedRule, ListedSet, ListedTable
from .writer import (
    DELETE_ELEMENT,
    DELETE_RULE,
    DELETE_TABLE,
    INET,
    NEW_CHAIN,
    NEW_ELEMENT,
    NEW_RULE,
    NEW_SET,
    NEW_TABLE,
    Elements,
)

_Listed = TypeVar("_Listed")

_BEGIN, _END = 0x10, 0x11
# struct nfgenmsg: no family, version 0, and the subsystem in network order.
_FRAME = bytes([0, 0, 0, 10])
# The error numbers of kernels without nfnetlink or nf_tables.
_NOT_THERE = (errno.EPROTONOSUPPORT, errno.EINVAL, errno.EOPNOTSUPP)
# The maximum number of times that elements are listed again until two listings agree.
_LISTINGS = 10
_WORDS = {
    NEW_TABLE: "add table",
    DELETE_TABLE: "delete table",
    NEW_CHAIN: "add chain",
    NEW_RULE: "add rule",
    DELETE_RULE: "flush chain",
    NEW_SET: "add set",
    NEW_ELEMENT: "add element",
    DELETE_ELEMENT: "delete element",
}


_HINTS = {
    errno.EPERM: "run as root or grant NET_ADMIN, or run with --steering=none",
    errno.EACCES: "run as root or grant NET_ADMIN, or run with --steering=none",
    errno.EOPNOTSUPP: "modprobe -a nft_nat nft_redir nft_ct nft_reject_inet, "
    "or use another steering",
}
# The error numbers for an expression whose kernel module is missing.
_NO_EXPRESSION = (errno.ENOENT, errno.EOPNOTSUPP)
_NOT_SUPPORTED = (errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)


class NftablesError(SteeringError):
    """The kernel refused a transaction, so nothing was changed; or the outcome is unknown.

    Args:
        code: The error number.
        kind: The kind of the refused message, such as NEW_RULE; 0 if no message was refused.
        is_certain: Whether nothing was changed. If false, the answer was lost or late, so the
            transaction may have been applied; or some of several transactions were applied.
    """

    def __init__(self, code: int, kind: int, *, is_certain: bool = True) -> None:
        self.code = code
        self.is_certain = is_certain
        is_missing = kind == NEW_RULE and code in _NO_EXPRESSION
        self.is_lasting = is_missing or code in _NOT_SUPPORTED
        hint = _HINTS.get(errno.EOPNOTSUPP if is_missing else code, "")
        place = f" ({_WORDS[kind]})" if kind in _WORDS else ""
        super().__init__(f"cannot change nftables: {os.strerror(code)}{place}", hint=hint)


def query_errors() -> AbstractContextManager[None]:
    """Turn OSErrors of sockets and listings into SteeringErrors."""
    return explained("query nftables", _HINTS, hint="modprobe nf_tables, or use another steering")


class Ruleset:
    """The ruleset of the calling thread's network namespace; not thread-safe.

    Owned tables (:meth:`.writer.TableWriter.create`) exist until all copies of the socket are
    closed. Methods raise a SteeringError if the kernel refuses.

    Args:
        sock: A copy of another process's socket, which :meth:`close` closes; None opens one.

    Raises:
        SteeringError: The kernel has no nftables, or permission is denied.
    """

    def __init__(self, sock: socket.socket | None = None) -> None:
        with query_errors():
            self._requests = Requests(sock) if sock else Requests.open(NETLINK_NETFILTER)
        try:
            self.generation()
        except BaseException:
            self._requests.close()
            raise

    @property
    def sock(self) -> socket.socket:
        """The socket that owns tables."""
        return self._requests.sock

    @property
    def port(self) -> int:
        """The port ID that events about this object's changes name as their sender."""
        return self._requests.port

    def generation(self) -> int:
        """Return the generation, which increases with each transaction of any program."""
        with query_errors():
            answer = self._requests.ask(request(reader.GET_GENERATION, 0, bytes(4)))
        return number_in(read_all(answer.body, 4), 1)

    def tables(self, family: int = reader.ANY_FAMILY) -> list[ListedTable]:
        """Return all tables, or only a family's tables."""
        return self._list(reader.read_table, reader.GET_TABLE, family)

    def chains(self, family: int = reader.ANY_FAMILY) -> list[ListedChain]:
        """Return all chains, or only the chains of a family's tables."""
        return self._list(reader.read_chain, reader.GET_CHAIN, family)

    def rules(self, family: int, table: str, chain: str = "") -> list[ListedRule]:
        """Return the rules of a table, or of one of its chains, in their order."""
        return self._list(reader.read_rule, reader.GET_RULE, family, table, chain)

    def sets(self, family: int, table: str) -> list[ListedSet]:
        """Return the sets and maps of a table without their elements."""
        return self._list(reader.read_set, reader.GET_SET, family, table)

    def elements(self, family: int, table: str, name: str) -> Elements:
        listing = self._elements(family, table, name)
        found = _read_elements(listing)
        for _ in range(_LISTINGS):
            # While the kernel moves a set into a larger hash table, which takes a few milliseconds,
            # a listing may silently lack elements, so list again until two listings agree.
            before, listing = listing, self._elements(family, table, name)
            if listing == before:
                break
            # The bytes may differ in counters only, so compare the parsed elements.
            found_before, found = found, _read_elements(listing)
            if found == found_before:
                break
        return found

    def first_elements(self, family: int, table: str, name: str, most: int) -> list[ListedElement]:
        """Return a set's or map's elements in any order: all, or slightly more than ``most``.

        Of a million elements, only the first few hundred are read.
        """
        listing = reader.list_of(reader.GET_ELEMENTS, family, table, name)
        found: list[ListedElement] = []
        # This opens another socket, because an unfinished listing blocks its socket.
        with query_errors(), Requests.open(NETLINK_NETFILTER) as requests:
            for block in requests.blocks(listing):
                for message in read_messages(block):
                    found += reader.list_elements(message)
                if len(found) > most:
                    break
        return found

    def counts(self, family: int, table: str, name: str) -> dict[bytes, int | None]:
        """Return how many packets have matched each element of a set; None without a counter.

        While the kernel moves the set into a larger hash table, the result may lack elements.
        """
        listed = self._list(reader.read_counts, reader.GET_ELEMENTS, family, table, name)
        return dict(element for elements in listed for element in elements)

    def commit(self, messages: Sequence[bytes]) -> None:
        """Make the changes of one or several writers as one transaction.

        Raises:
            NftablesError: The kernel refused the transaction, or its answer was lost. With
                EMSGSIZE, it is too large for the socket, which happens only without privileges in
                the initial user namespace.
        """
        self._send(messages, request(_END, 0, _FRAME))

    def try_out(self, messages: Sequence[bytes]) -> None:
        """Raise an NftablesError if the kernel would refuse these changes; change nothing."""
        # The kernel discards a transaction without an end.
        self._send(messages, b"")

    def close(self) -> None:
        """Close the socket, which removes owned tables unless a copy is open; idempotent."""
        self._requests.close()

    def _send(self, messages: Sequence[bytes], end: bytes) -> None:
        if not messages:
            return
        try:
            refused = self._requests.transact(request(_BEGIN, 0, _FRAME), messages, end)
        except OSError as exc:
            # A message that is too large is never sent, so it certainly has no effect.
            is_certain = exc.errno == errno.EMSGSIZE
            raise NftablesError(exc.errno or errno.EIO, 0, is_certain=is_certain) from exc
        if refused is not None:
            raise NftablesError(refused.code, refused.kind)

    def _elements(self, family: int, table: str, name: str) -> list[Message]:
        """Return a listing of elements without sequence numbers, for comparison."""
        listing = self._list(Message._make, reader.GET_ELEMENTS, family, table, name)
        return [message._replace(number=0) for message in listing]

    def _list(
        self,
        read: Callable[[Message], _Listed],
        kind: int,
        family: int,
        table: str = "",
        name: str = "",
    ) -> list[_Listed]:
        with query_errors():
            return list(
                map(read, self._requests.list_all(reader.list_of(kind, family, table, name)))
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def _read_elements(listing: Sequence[Message]) -> dict[bytes, bytes]:
    return dict(element for message in listing for element in reader.read_elements(message))


def list_tables(family: int = INET) -> list[str]:
    """Return the names of all tables of a family; empty where the kernel has no nftables.

    Raises:
        SteeringError: The kernel refused the listing, or no socket is available.
    """
    with query_errors():
        try:
            with Requests.open(NETLINK_NETFILTER) as requests:
                listed = requests.list_all(reader.list_of(reader.GET_TABLE, family))
                return [reader.read_table(message).name for message in listed]
        except OSError as exc:
            if exc.errno in _NOT_THERE:
                return []
            raise

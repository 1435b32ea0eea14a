"""Resolves names through the DNS servers of this node; returns addresses with TTLs.

    A, AAAA ──▶ server of resolv.conf ──▶ addresses, the shortest TTL of these and their aliases
                      └ silent or failed: the next server, in two rounds

Rule 1: names are absolute: neither the search list nor /etc/hosts is used.
Rule 2: a lookup takes at most five seconds. It reads at most 64 records of each answer, in less
than a millisecond (``dns_wire``).

Source: resolv.conf(5); RFC 1035; RFC 2308 (answers without a record).
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import UserspaceProxyError
from ..model import IPFamily, SocketAddress, parse_ip
from ..model.endpoint_names import Lookup
from .dns_client import ask_for_addresses
from .dns_wire import MalformedMessage, ResponseCode, make_query, name_of_code

RESOLV_CONF = Path("/etc/resolv.conf")
LOOKUP_S = 5.0
_TRY_S = 2.0
# MAXNS, and the default of "attempts". Source: resolv.conf(5).
_SERVERS_MAX, _ROUNDS = 3, 2
_DEFAULT_SERVERS = ("127.0.0.1",)
_TYPES = {IPFamily.IPV4: "A", IPFamily.IPV6: "AAAA"}


class LookupFailed(UserspaceProxyError):
    """A name is invalid in DNS, or no DNS server has returned a usable answer."""


class _FamilyAnswer(NamedTuple):
    addresses: tuple[str, ...]
    ttl_s: float
    is_name: bool
    """Whether the name exists; it may have no addresses."""


class NodeResolver:
    """Resolves names through this node's DNS servers.

    Args:
        resolv_conf: The file to read at each lookup: DHCP clients and the kubelet replace it.
        port: The servers' port.
    """

    def __init__(self, resolv_conf: Path = RESOLV_CONF, port: int = 53) -> None:
        self._resolv_conf = resolv_conf
        self._port = port

    async def look_up(self, host: str, families: Sequence[IPFamily]) -> Lookup:
        """Look up the addresses of a name; a failure is part of the result."""
        asked = [self._ask(host, family) for family in families]
        results = await asyncio.gather(*asked, return_exceptions=True)
        answers: dict[IPFamily, _FamilyAnswer] = {}
        failures: list[str] = []
        for family, result in zip(families, results, strict=True):
            if isinstance(result, _FamilyAnswer):
                answers[family] = result
            elif isinstance(result, LookupFailed):
                failures.append(result.message)
            else:
                raise result
        addresses = {family: answer.addresses for family, answer in answers.items()}
        found = [answer.ttl_s for answer in answers.values() if answer.addresses]
        if found:
            return Lookup(addresses, min(found))
        if failures:
            return Lookup(addresses, why=failures[0])
        if not any(answer.is_name for answer in answers.values()):
            return Lookup(addresses, why="DNS has no such name")
        return Lookup(addresses, why=f"DNS has no {' or '.join(map(str, families))} address")

    async def _ask(self, host: str, family: IPFamily) -> _FamilyAnswer:
        """Ask the servers in turn until one answers with NOERROR or NXDOMAIN.

        Raises:
            LookupFailed: The name isn't valid in DNS, or no server returns NOERROR or NXDOMAIN.
        """
        try:
            query = make_query(secrets.randbits(16), host, _TYPES[family])
        except MalformedMessage as exc:
            raise LookupFailed(f"it is not a DNS name: {exc}") from exc
        failure = "no server answers"
        try:
            async with asyncio.timeout(LOOKUP_S):
                for server in itertools.chain.from_iterable([self._servers()] * _ROUNDS):
                    try:
                        address = SocketAddress(server, self._port)
                        found = await ask_for_addresses(address, query, _TRY_S)
                    except TimeoutError:
                        failure = f"server {server} does not answer"
                    except (OSError, EOFError, MalformedMessage) as exc:
                        failure = f"server {server}: {str(exc) or type(exc).__name__}"
                    else:
                        if found.code in (ResponseCode.NOERROR, ResponseCode.NXDOMAIN):
                            is_name = found.code != ResponseCode.NXDOMAIN
                            return _FamilyAnswer(found.addresses, float(found.ttl_s), is_name)
                        failure = f"server {server} answers {name_of_code(found.code)}"
        except TimeoutError:
            pass
        raise LookupFailed(failure)

    def _servers(self) -> tuple[str, ...]:
        try:
            text = self._resolv_conf.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return _DEFAULT_SERVERS
        return tuple(_read_servers(text.splitlines()))[:_SERVERS_MAX] or _DEFAULT_SERVERS


def _read_servers(lines: Iterable[str]) -> Iterable[str]:
    for line in lines:
        word, *rest = line.split()[:2] or [""]
        if word == "nameserver" and rest:
            try:
                yield parse_ip(rest[0])
            except ValueError:
                # Skip link-local addresses with a zone, and invalid addresses.
                continue

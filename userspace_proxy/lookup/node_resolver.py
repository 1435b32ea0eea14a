"""Looks names up by the DNS servers of this node, with how long the answers are valid.

    A, AAAA ──UDP──▶ server of resolv.conf ──truncated, without a record──▶ TCP
                      │ silent, fails: the next one, twice round
                      └ answers ──▶ addresses, shortest TTL of the chain of aliases

Rule 1: names are absolute: the search list isn't used, nor /etc/hosts.
Rule 2: a message of more than 8 KiB isn't parsed: that would hold the event loop for long.
Rule 3: a lookup takes five seconds at most.

Source: resolv.conf(5); RFC 1035; RFC 2308 (answers without a record).
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from ..errors import UserspaceProxyError
from ..model import IPFamily, parse_ip
from ..model.endpoint_names import Lookup

RESOLV_CONF = Path("/etc/resolv.conf")
ADDRESSES_MAX = 64
"""Addresses of one name and family; the first ones, sorted."""
LOOKUP_S = 5.0
_TRY_S = 2.0
# Source: resolv.conf(5), MAXNS and the default of "attempts".
_SERVERS_MAX, _ROUNDS = 3, 2
_DEFAULT_SERVERS = ("127.0.0.1",)
# Without fragments. Source: DNS flag day 2020.
_UDP_BYTES = 1232
_TCP_BYTES_MAX = 8192
_SIZE = struct.Struct(">H")
_TYPES = {IPFamily.IPV4: dns.rdatatype.A, IPFamily.IPV6: dns.rdatatype.AAAA}
_FAILURES = (dns.exception.DNSException, OSError, EOFError, ValueError, struct.error)


class LookupFailed(UserspaceProxyError):
    """No server has answered a question."""


class _FamilyAnswer(NamedTuple):
    addresses: tuple[str, ...]
    ttl_s: float
    is_name: bool
    """The name exists."""


class NodeResolver:
    """Looks up names.

    Args:
        resolv_conf: Read at each lookup: DHCP clients and the kubelet replace it.
        port: That of its servers.
    """

    def __init__(self, resolv_conf: Path = RESOLV_CONF, port: int = 53) -> None:
        self._resolv_conf = resolv_conf
        self._port = port

    async def look_up(self, host: str, families: Sequence[IPFamily]) -> Lookup:
        """Look up the addresses of a name; whatever fails is a part of the result."""
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
        """Ask the servers in turn until one answers.

        Raises:
            LookupFailed: None does.
        """
        try:
            query = dns.message.make_query(
                f"{host}.", _TYPES[family], use_edns=0, payload=_UDP_BYTES
            )
        except _FAILURES as exc:
            raise LookupFailed(f"it is not a DNS name: {exc}") from exc
        servers = self._servers()
        failure = "no server answers"
        try:
            async with asyncio.timeout(LOOKUP_S):
                for server in itertools.chain.from_iterable([servers] * _ROUNDS):
                    try:
                        response = await self._ask_server(query, server)
                        code = response.rcode()
                        if code in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                            return _read(response)
                        failure = f"server {server} answers {dns.rcode.to_text(code)}"
                    except (dns.exception.Timeout, TimeoutError):
                        failure = f"server {server} does not answer"
                    except _FAILURES as exc:
                        failure = f"server {server}: {str(exc) or type(exc).__name__}"
        except TimeoutError:
            pass
        raise LookupFailed(failure)

    async def _ask_server(self, query: dns.message.Message, server: str) -> dns.message.Message:
        try:
            return await dns.asyncquery.udp(
                query,
                server,
                timeout=_TRY_S,
                port=self._port,
                ignore_unexpected=True,
                ignore_errors=True,
                raise_on_truncation=True,
            )
        except dns.message.Truncated as exc:
            # There is no room for more addresses than that anyway.
            response = exc.message()
            if response.resolve_chaining().answer is not None:
                return response
        async with asyncio.timeout(_TRY_S):
            return await self._ask_by_tcp(query, server)

    async def _ask_by_tcp(self, query: dns.message.Message, server: str) -> dns.message.Message:
        reader, writer = await asyncio.open_connection(server, self._port)
        try:
            wire = query.to_wire()
            writer.write(_SIZE.pack(len(wire)) + wire)
            (size,) = _SIZE.unpack(await reader.readexactly(_SIZE.size))
            if size > _TCP_BYTES_MAX:
                raise ValueError(f"its answer has {size:,} bytes, and {_TCP_BYTES_MAX:,} are read")
            response = dns.message.from_wire(await reader.readexactly(size))
        finally:
            writer.close()
        if not query.is_response(response):
            raise ValueError("it answers another question")
        return response

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
                # A zone, of a link-local server, or no address.
                continue


def _read(response: dns.message.Message) -> _FamilyAnswer:
    """Return what a response says about its question.

    Raises:
        dns.exception.DNSException: It isn't an answer to it.
    """
    found = response.resolve_chaining()
    is_name = response.rcode() != dns.rcode.NXDOMAIN
    records = [record.address for record in found.answer or ()]
    addresses = sorted({str(ipaddress.ip_address(text)) for text in records})
    return _FamilyAnswer(tuple(addresses[:ADDRESSES_MAX]), float(found.minimum_ttl), is_name)

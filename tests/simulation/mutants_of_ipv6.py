"""Mutants of IPv6: see ``mutant_table``."""

from __future__ import annotations

from collections.abc import Mapping

from .mutant_table import Mutant

MUTANTS: Mapping[str, Mutant] = {
    "hop-limit-of-the-other-family": Mutant(
        "socket_options",
        "set_ip_option(sock, IP_TTL, IPV6_UNICAST_HOPS, hops)",
        "sock.setsockopt(_socket.IPPROTO_IP, IP_TTL, hops)",
        package="kernel",
    ),
    "exceeded-hop-limit-of-ipv6-refuses": Mutant(
        "socket_options",
        "_EXCEEDED = {(_FROM_ICMP, 11), (_FROM_ICMP6, 3)}",
        "_EXCEEDED = {(_FROM_ICMP, 11)}",
        package="kernel",
    ),
    "errors-of-ipv6-arent-kept": Mutant(
        "socket_options",
        "set_ip_option(sock, IP_RECVERR, IPV6_RECVERR)",
        "sock.setsockopt(_socket.IPPROTO_IP, IP_RECVERR, 1)",
        package="kernel",
    ),
    "local-address-of-ipv6-is-cut": Mutant(
        "socket_options",
        "data[: 20 if is_link_local else 16]",
        "data[:8]",
        package="kernel",
    ),
    "network-of-ipv6-is-its-client": Mutant(
        "shares",
        '    if ":" not in client_ip:\n        return None\n',
        "    if client_ip:\n        return None\n",
        package="policy",
    ),
}

"""What all tables of ours are written with: sections, elements, commands.

Rule 1: an element is text as ``nft`` prints it, so that both compare as text.
"""

from __future__ import annotations

import itertools
import re
import socket
from collections.abc import Iterable, Iterator

from ...model import Frontend, Protocol

# Before the filters of others, so that a dialled proxy port is refused, not passed over in silence.
FILTER_PRIORITY = -10
# How many elements stand in a command: a message of 2,000 fits any socket (65 to 100 bytes each).
COMMAND_ELEMENTS = 2000
NUMBERS = {Protocol.TCP: socket.IPPROTO_TCP, Protocol.UDP: socket.IPPROTO_UDP}
_ELEMENTS = re.compile(r"\n\t\telements = \{[^}]*\}")


def printed_ip(ip: str) -> str:
    """Return an address as the kernel's tools print it: ::ffff:10.0.0.1, not ::ffff:a00:1."""
    if ":" not in ip:
        return ip
    return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, ip))


def frontend_key(frontend: Frontend) -> str:
    """Return the element that is a frontend: ``10.96.7.1 . 6 . 80``."""
    return f"{printed_ip(frontend.ip)} . {NUMBERS[frontend.protocol]:d} . {frontend.port}"


def write_section(kind: str, name: str, lines: Iterable[str]) -> str:
    """Return a set, map or chain of a table."""
    return "".join([f"\t{kind} {name} {{\n", *(f"\t\t{line}\n" for line in lines), "\t}\n"])


def write_removal(table: str) -> str:
    """Return the commands that remove a table, be it there or not."""
    return f"add table inet {table}\ndelete table inet {table}"


def write_elements(verb: str, table: str, name: str, elements: Iterable[str]) -> Iterator[str]:
    """Yield the commands that add or delete elements of a set or map, in their order.

    Args:
        verb: ``add`` or ``delete``.
        table: The table's name.
        name: The set's or map's.
        elements: Keys, or keys and values.
    """
    waiting = iter(elements)
    while chunk := list(itertools.islice(waiting, COMMAND_ELEMENTS)):
        yield f"{verb} element inet {table} {name} {{ {', '.join(chunk)} }}"


def without_elements(text: str) -> str:
    """Return what ``list table`` has printed, as it prints tables without elements."""
    return _ELEMENTS.sub("", text)

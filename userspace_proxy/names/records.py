"""Defines DNS records and answers as values; a record's data is text as in a zone file."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class RecordType(enum.StrEnum):
    """The types of records that answers contain."""

    A = "A"
    AAAA = "AAAA"
    CNAME = "CNAME"
    PTR = "PTR"
    SOA = "SOA"
    SRV = "SRV"
    TXT = "TXT"


class Code(enum.StrEnum):
    """The response code of an answer."""

    NOERROR = "NOERROR"
    """The name exists; the answer has no records if none is of the requested type."""
    NXDOMAIN = "NXDOMAIN"
    """The name doesn't exist."""
    REFUSED = "REFUSED"
    """The name is outside the served domains."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record; its text is a line of a zone file."""

    name: str
    """The absolute name, with a trailing dot."""
    type: RecordType
    data: str
    """``10.96.0.10``, or ``0 100 80 web.shop.svc.cluster.local.`` for an SRV record."""
    ttl_s: int

    def __str__(self) -> str:
        return f"{self.name} {self.ttl_s} IN {self.type} {self.data}"


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    """The answer to one question."""

    code: Code
    records: tuple[Record, ...] = ()
    """The answer section."""
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    is_authoritative: bool = True
    elsewhere: str = ""
    """The target of the last CNAME if it is outside the cluster's domain; otherwise empty."""
    is_partial: bool = False
    """Whether more records exist than the answer contains."""

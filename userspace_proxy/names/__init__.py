"""Resolves names of Services as cluster DNS does, without I/O."""

from .host_addresses import NDOTS, FoundName, find_name, search_list
from .index import NameIndex
from .records import Code, DnsAnswer, Record, RecordType
from .resolver import CLUSTER_DOMAIN, ServiceNames
from .targets import Pick

__all__ = [
    "CLUSTER_DOMAIN",
    "NDOTS",
    "Code",
    "DnsAnswer",
    "FoundName",
    "NameIndex",
    "Pick",
    "Record",
    "RecordType",
    "ServiceNames",
    "find_name",
    "search_list",
]

"""Names of Services, as cluster DNS answers for them: values in, values out."""

from .host_addresses import FoundName, find_name
from .index import NameIndex
from .records import Code, DnsAnswer, Record, RecordType
from .resolver import CLUSTER_DOMAIN, TTL_S, ServiceNames
from .search_list import NDOTS, candidates, search_list
from .targets import Pick

__all__ = [
    "CLUSTER_DOMAIN",
    "NDOTS",
    "TTL_S",
    "Code",
    "DnsAnswer",
    "FoundName",
    "NameIndex",
    "Pick",
    "Record",
    "RecordType",
    "ServiceNames",
    "candidates",
    "find_name",
    "search_list",
]

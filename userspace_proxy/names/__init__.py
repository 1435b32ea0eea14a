"""Names of Services, as cluster DNS answers for them: values in, values out."""

from .addresses import FoundName, find_name
from .records import Code, DnsAnswer, Record, RecordType
from .resolver import CLUSTER_DOMAIN, TTL_S, ServiceNames
from .search import NDOTS, candidates, search_list

__all__ = [
    "CLUSTER_DOMAIN",
    "NDOTS",
    "TTL_S",
    "Code",
    "DnsAnswer",
    "FoundName",
    "Record",
    "RecordType",
    "ServiceNames",
    "candidates",
    "find_name",
    "search_list",
]

"""Names of Services, as cluster DNS answers for them: values in, values out."""

from .records import Code, DnsAnswer, Record, RecordType
from .resolver import CLUSTER_DOMAIN, TTL_S, ServiceNames
from .search import NDOTS, candidates, search_list

__all__ = [
    "CLUSTER_DOMAIN",
    "NDOTS",
    "TTL_S",
    "Code",
    "DnsAnswer",
    "Record",
    "RecordType",
    "ServiceNames",
    "candidates",
    "search_list",
]

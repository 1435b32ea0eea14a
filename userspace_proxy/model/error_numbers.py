"""Numbers noted of a failed connection or dial where an errno alone doesn't show the reason.

    client ◀──NOT_TO_CLIENT── proxy ──NOT_TO_ENDPOINT──▶ endpoint
                              proxy ◀──FROM_ENDPOINT──── endpoint

Rule 1: each is an errno that no end of a connection and no dial has, so it shares a place with one.
Rule 2: a router or firewall may report by ICMP the errno of a route of this node, so each reason
that is such a route has a number that comes neither from a socket nor from ICMP.

Source: fib_props in net/ipv4/fib_semantics.c; ip6_rt_type_to_error() in net/ipv6/route.c.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping

NOT_TO_ENDPOINT = errno.EMSGSIZE
"""The endpoint acknowledged the handshake, and not what was sent to it behind that."""
FROM_ENDPOINT = errno.EBADMSG
"""Bytes of the endpoint have arrived behind a gap that wasn't filled."""
NOT_TO_CLIENT = errno.EPROTO
"""The client didn't acknowledge bytes of the answer, and then left."""
LOSSES = frozenset({NOT_TO_ENDPOINT, FROM_ENDPOINT, NOT_TO_CLIENT})
"""Those of lost packets."""

NO_ROUTE, PROHIBITED, UNREACHABLE_TYPE = errno.ESRCH, errno.EDOM, errno.ERANGE
OWN_ROUTES: Mapping[int, int] = {
    errno.ENETUNREACH: NO_ROUTE,
    errno.EACCES: PROHIBITED,
    errno.EHOSTUNREACH: UNREACHABLE_TYPE,
}
"""Our own number for each errno that a dial and a route look-up share when a route of this node, or
the lack of one, made the dial fail."""

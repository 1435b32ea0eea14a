"""Derives from a Service's fields the endpoints that a client may reach, and the first of them."""

from __future__ import annotations

import ipaddress

from userspace_proxy.model import SocketAddress
from userspace_proxy.model.serving import Serving

Endpoints = tuple[SocketAddress, ...]


def allowed(serving: Serving, client_ip: str) -> Endpoints:
    """Return the endpoints that a client may reach, including standbys."""
    if serving.outside is None or is_inside(serving, client_ip):
        return serving.endpoints
    return serving.outside


def first(serving: Serving, client_ip: str) -> Endpoints:
    """Return the endpoints of the best priority for a client."""
    return _best(serving, allowed(serving, client_ip))


def firsts(serving: Serving) -> tuple[Endpoints, Endpoints]:
    """Return the endpoints of the best priority for clients inside and outside."""
    outside = serving.endpoints if serving.outside is None else serving.outside
    return _best(serving, serving.endpoints), _best(serving, outside)


def is_inside(serving: Serving, client_ip: str) -> bool:
    address = ipaddress.ip_address(client_ip)
    return any(address in ipaddress.ip_network(network) for network in serving.inside)


def is_left_out(before: Serving, now: Serving, endpoint: SocketAddress) -> bool:
    """Return whether a change removes an endpoint, at least for some clients."""
    olds, news = firsts(before), firsts(now)
    is_first_for_all = all(endpoint in new for new in news)
    if before.inside != now.inside and not is_first_for_all:
        return True
    if endpoint in before.leaving or endpoint not in now.all_endpoints:
        return not is_first_for_all
    return any(endpoint in old and endpoint not in new for old, new in zip(olds, news, strict=True))


def _best(serving: Serving, endpoints: Endpoints) -> Endpoints:
    priorities = dict(serving.standbys)
    best = min((priorities.get(each, 0) for each in endpoints), default=0)
    return tuple(each for each in endpoints if priorities.get(each, 0) == best)

"""Names and objects for tests of the pure packages, and functions that build more."""

from userspace_proxy.model import (
    Endpoint,
    EndpointSlice,
    IPFamily,
    Service,
    ServiceKey,
    ServicePort,
    SliceKey,
    SlicePort,
    SocketAddress,
)

ALICE = "203.0.113.1"
BOB = "203.0.113.2"
CAROL = "203.0.113.3"

POD_A = SocketAddress("192.0.2.1", 8080)
POD_B = SocketAddress("192.0.2.2", 8080)
POD_C = SocketAddress("192.0.2.3", 8080)

CART = ServiceKey("shop", "cart")
WEB = ServiceKey("shop", "web")
CART_IP = "198.51.100.7"
CART_IP_V6 = "2001:db8::7"
WEB_IP = "198.51.100.8"

HTTP = ServicePort("http", 80, "TCP")
HTTP_TARGET = SlicePort("http", 8080, "TCP")

READY = {"ready": True}
NOT_READY = {"ready": False, "serving": False}
TERMINATING = {"ready": False, "serving": True, "terminating": True}
GONE = {"ready": False, "serving": False, "terminating": True}


def service(key=CART, ports=(HTTP,), cluster_ips=(CART_IP,), **fields):
    """Return a Service, by default with one TCP port."""
    return Service(key, tuple(ports), cluster_ips=tuple(cluster_ips), **fields)


def slice_of(*endpoints, key="cart-1", of=CART, ports=(HTTP_TARGET,), family=IPFamily.IPV4):
    """Return a slice; an IP address as an endpoint means a ready endpoint."""
    return EndpointSlice(
        SliceKey(of.namespace, key),
        of,
        family,
        tuple(ports),
        tuple(Endpoint(e) if isinstance(e, str) else e for e in endpoints),
    )

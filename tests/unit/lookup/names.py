"""Provides the names of three Services for look-ups."""

from tests.unit.model.samples import service
from userspace_proxy.cluster import Store
from userspace_proxy.model import ServiceKey, ServiceType
from userspace_proxy.names import ServiceNames, find_name, search_list


def shop():
    """Return the names of the Services web, v4 and db in the namespace shop."""
    store = Store()
    store.put_service(service(ServiceKey("shop", "web"), cluster_ips=("127.64.0.10", "::1")))
    store.put_service(service(ServiceKey("shop", "v4"), cluster_ips=("127.64.0.11",)))
    store.put_service(
        service(
            ServiceKey("shop", "db"),
            (),
            (),
            type=ServiceType.EXTERNAL_NAME,
            external_name="localhost",
        )
    )
    return ServiceNames(store.snapshot())


class ShopNames:
    """Look-ups by a program in the namespace shop; TCP port 80 is served on port 8000."""

    def __init__(self, names=None):
        self._names = names or shop()

    def find(self, host):
        return find_name(self._names, host, search_list("shop", "cluster.local"))

    def reached(self, ip, port, *, is_udp):
        return (ip, 8000 if port == 80 and not is_udp else port)

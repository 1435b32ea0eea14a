r"""Services for tests: a proxy in a thread, with backends that can be stopped and restarted.

::

    with ServiceProxy() as proxy:
        web = proxy.service("web", port=80, backends=2)
        web.backends[0].stop()
        assert urlopen(web.url).read() == b"web-2\n"
        assert web.stats.saved == 1
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from userspace_proxy.embedding.arguments import HandlingArguments
from userspace_proxy.embedding.loop_thread import LoopThread
from userspace_proxy.facts import StatusFacts
from userspace_proxy.facts.units import plural
from userspace_proxy.hosts import is_loopback_address
from userspace_proxy.lookup.in_process import ProcessNames
from userspace_proxy.model import DataPath

from .backend_arguments import BackendLike, as_command
from .places import BackendPlace
from .served_service import ProxyCalls, RecordingProxy
from .services import ProxiedService, Services

if TYPE_CHECKING:
    from userspace_proxy.lookup.aiohttp_resolver import ServiceResolver


class ServiceProxy(Services, RecordingProxy):
    """A proxy whose Services have backends, with the arguments of ``Proxy``."""

    def __init__(self, **arguments: Any) -> None:
        self._is_without_steering = arguments.get("steering", "none") == "none"
        RecordingProxy.__init__(self, **arguments)
        Services.__init__(self)

    def __repr__(self) -> str:
        return f"<ServiceProxy, {plural(len(self.services), 'Service')}>"

    def end_services(self) -> None:
        """Remove all Services."""
        with contextlib.ExitStack() as each:
            for service in self.services:
                each.callback(service.remove)

    def status(self) -> StatusFacts:
        """Return this proxy's current status."""
        return RecordingProxy.status(self)

    def names(self, namespace: str = "default") -> ProcessNames:
        """Make this process resolve the names of Services as in a namespace, in a ``with`` block.

        Raises:
            LookupError: The namespace isn't ``default``, and contains no Service.
        """
        found = RecordingProxy.names(self, namespace)
        self._check_used(namespace)
        return found

    def resolver(self, namespace: str = "default") -> ServiceResolver:
        """Return an aiohttp resolver; raise LookupError like :meth:`names`."""
        found = RecordingProxy.resolver(self, namespace)
        self._check_used(namespace)
        return found

    def _check_used(self, namespace: str) -> None:
        used = {service.key.namespace for service in self.services}
        # The default namespace is always accepted, because qualified names resolve in it.
        if namespace not in {*used, "default"}:
            have = f"Services are in {', '.join(sorted(used))}" if used else "there is no Service"
            raise LookupError(f"no Service is in namespace {namespace}: {have}")

    def _check_effect(
        self, protocol: str, cluster_ip: str | None, handling: HandlingArguments
    ) -> None:
        super()._check_effect(protocol, cluster_ip, handling)
        if not self._is_without_steering:
            return
        other = "service_network has ClusterIPs of every kind"
        if cluster_ip is not None and not is_loopback_address(cluster_ip):
            what = f"cluster_ip: {cluster_ip} has no effect: without steering clients dial loopback"
            raise ValueError(f"{what} (give one of 127.0.0.0/8, or ::1; {other})")
        if handling.get("path") == DataPath.AUTO:
            what = "path: auto has no effect: without steering all is userspace"
            raise ValueError(f"{what} (service_network has nftables)")

    def _calls(self) -> ProxyCalls:
        return self

    def _backend_thread(self) -> LoopThread:
        return self._thread

    def _find_place(
        self, number: int, like: BackendLike | None, *, cluster_ip: str | None, namespace: str
    ) -> BackendPlace:
        if cluster_ip is not None and ":" in cluster_ip:
            return BackendPlace("::1")
        if as_command(like) is not None:
            # Most programs listen on 127.0.0.1 by default.
            return BackendPlace()
        # Endpoints take turns in address order, so assign addresses in the list's order.
        return BackendPlace(f"127.0.{number // 250}.{number % 250 + 1}")


__all__ = ["ProxiedService", "ServiceProxy"]

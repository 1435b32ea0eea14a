r"""Serves a cluster's Services whose Pods the test runs: a cluster of envtest, KWOK or kind.

::

    with KubernetesServices(kubeconfig) as services:
        web = services["shop/web"]
        web.pods = {"web-1": None, "web-2": lambda request: "hello"}
        assert urlopen(web.url).status == 200

    API server ──Services, Pods──▶ proxy ──▶ backends of this test
               ◀──Pods: created, ready, at the addresses of these backends
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from userspace_proxy.causes.say import say
from userspace_proxy.errors import SourceError
from userspace_proxy.facts import StatusFacts
from userspace_proxy.model import ServiceKey
from userspace_proxy.sources.kubernetes import KubernetesSource
from userspace_proxy.sources.kubernetes.kubeconfig_files import Kubeconfig

from .kubernetes_service import KubernetesService, PodRun
from .pod_api import PodApi
from .pod_runner import PodRunner, holds_soon
from .running_pods import PodLike, RunningPod
from .served_service import RecordingProxy

_ANSWER_S = 20.0


class KubernetesServices(RecordingProxy):
    """A proxy for the Services of a cluster; ``services["shop/web"]`` is such a Service.

    Args:
        kubeconfig: The cluster's kubeconfig: a file, or several. Its user must be allowed to list
            and watch Services, EndpointSlices and Pods, and to create, patch and delete the Pods
            that run here, with their status.
    """

    def __init__(self, kubeconfig: str | Kubeconfig) -> None:
        super().__init__(source=KubernetesSource(kubeconfig=kubeconfig, endpoints_from_pods=True))
        self._kubeconfig = kubeconfig
        self._api = PodApi(kubeconfig)
        self._runner = PodRunner(self._api, self.status)
        self._used: dict[tuple[ServiceKey, str], KubernetesService] = {}
        self._runs: dict[ServiceKey, dict[str, PodRun]] = {}

    def __repr__(self) -> str:
        return f"<KubernetesServices of {self._kubeconfig}, {len(self._runner)} Pods run here>"

    def start(self) -> None:
        """Start the proxy, and wait until it has read the cluster's objects.

        Raises:
            SourceError: The objects can't be read; the message contains the reason.
        """
        super().start()
        self._runner.start(self._thread)
        try:
            self._thread.call(self._read())
        except BaseException:
            self.close()
            raise

    async def _read(self) -> None:
        await self._api.open()
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._object.settled()
        except TimeoutError as exc:
            problems = self._object.status().source.problems
            what = "; ".join(problems) or f"no answer after {_ANSWER_S:.0f} s"
            raise SourceError(f"cannot read the cluster of {self._kubeconfig}: {what}") from exc

    def __getitem__(self, name: str) -> KubernetesService:
        """Return a Service by ``namespace/name`` or ``namespace/name:port``, once it is served.

        The default namespace is ``default``, the default port is the Service's first port.

        Raises:
            LookupError: The Service isn't served; the message contains the reason.
        """
        text, _, port = name.partition(":")
        namespace, _, last = text.rpartition("/")
        key = ServiceKey(namespace or "default", last)
        if not holds_soon(lambda: self._is_served(key, port)):
            status = self.status()
            causes = [say(i.cause) for i in status.ignored if i.service == str(key)]
            reasons = causes or status.source.problems or ["there is no such Service or port"]
            raise LookupError(f"{name} is not served: {reasons[0]}")
        if not port:
            service, _ = self._thread.call(self._api.service(key))
            port = service.ports[0].name
        runs = self._runs.setdefault(key, {})
        made = KubernetesService(self, self._runner, key, port, runs)
        return self._used.setdefault((key, port), made)

    def _is_served(self, key: ServiceKey, port: str) -> bool:
        names = [view.plan.key.name for view in self.status().ports]
        return any(name.service == key and port in ("", name.port) for name in names)

    def run_pods(self, service: str, like: PodLike = None) -> list[RunningPod]:
        """Run, inside this test, all Pods that a Service selects.

        See ``KubernetesService.run_pods``.
        """
        return self[service].run_pods(like)

    @property
    def services(self) -> Sequence[KubernetesService]:
        """The Services that the test used."""
        return tuple(self._used.values())

    def end_services(self) -> None:
        """End the Pods that run here: delete those created or drained here, restore the others."""
        if not self._thread.is_running:
            return
        try:
            self._runner.close()
        finally:
            self._thread.call(self._api.close())


class UsedServices:
    """The Services that a test used, for reports; the cluster's other Services are omitted."""

    def __init__(self, proxy: KubernetesServices) -> None:
        self._proxy = proxy

    @property
    def services(self) -> Sequence[KubernetesService]:
        """The Services, in order of first use."""
        return self._proxy.services

    def status(self) -> StatusFacts:
        """Return the proxy's status with only these Services' ports."""
        status, used = self._proxy.status(), {service.key for service in self.services}
        ports = [p for p in status.ports if p.plan.key.name.service in used]
        names = {*map(str, used)}
        ignored = [item for item in status.ignored if item.service in names]
        return status.part(ports, ignored, status.health_checks)


__all__ = ["KubernetesService", "KubernetesServices", "UsedServices"]

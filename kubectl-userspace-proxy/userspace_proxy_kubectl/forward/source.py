"""Provides the source and dialer of a proxy that forwards a cluster's Services.

KubernetesSource ──Snapshot──▶ Forwardable ──Snapshot──▶ Proxy, steering none
                                   └──pods──▶ PortForwarder ◀──dials──┘
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from userspace_proxy.agent.rounds.options import Options
from userspace_proxy.agent.rounds.tasks import first_of
from userspace_proxy.cluster import Snapshot
from userspace_proxy.dataplane import Tuning
from userspace_proxy.model import ServiceKey
from userspace_proxy.sources import Source
from userspace_proxy.sources.base import Publish, SourceStatus
from userspace_proxy.sources.kubernetes import KubernetesSource
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.credentials import Credentials
from userspace_proxy.sources.kubernetes.kubeconfig_files import Kubeconfig

from ..user_rights import check_access
from .forwardable import Forwardable
from .port_forwarder import PortForwarder

CONNECT_S = 5.0
"""Seconds to connect to one pod: opening a stream takes several round trips to the API server."""

_CHECK_S = 30.0


class ForwardSource(Source):
    """The source of the Services that this machine serves, with a dialer for their pods.

    Args:
        kubeconfig: A kubeconfig file, or several; empty: none.
        master: The server's URL, which overrides the kubeconfig's URL.
        wanted: The Services to forward; empty for all.
        namespace: The only namespace to read; empty for all.
        address: The common address of all Services; empty if each has its own.

    Raises:
        SourceError: The kubeconfig or ``master`` can't be used.
    """

    kind = "port-forward"

    def __init__(
        self,
        *,
        kubeconfig: str | Kubeconfig,
        master: str = "",
        wanted: frozenset[ServiceKey] = frozenset(),
        namespace: str = "",
        address: str = "",
    ) -> None:
        self._credentials = Credentials(kubeconfig=kubeconfig, master=master)
        self._credentials.check()
        self.namespace = namespace
        """The namespace to read; empty for all."""
        self.location = self._credentials.location
        self.published = asyncio.Event()
        """Set at each change of the Services."""
        self.services = Forwardable(wanted, seed=self._credentials.cluster, address=address)
        """The forwarded Services."""
        self._source = KubernetesSource(
            kubeconfig=kubeconfig,
            master=master,
            with_headless=True,
            with_pods=True,
            namespace=self.namespace,
        )
        # The dialer shares the client: a missing pod shows that watches may be stale.
        self.dialer = PortForwarder(self._source.client, lambda: self.services.pods)
        """Dials the endpoints while the source is running."""

    def options(self, others: Options | None = None) -> Options:
        """Return the given or default options, changed for this source and steering ``none``."""
        tuning = Tuning(connect_timeout_s=CONNECT_S)
        return replace(
            others or Options(tuning=tuning),
            dialer=self.dialer,
            second_port=self.services.second_port,
            workers=None,
        )

    @property
    def identity(self) -> str:
        return self._source.identity

    def check(self) -> None:
        self._source.check()

    async def check_access(self) -> None:
        """Check that the API server responds and grants the required permissions.

        Raises:
            SourceError: The check failed.
        """
        client = ApiClient(self._credentials)
        try:
            await check_access(client, self.namespace, within_s=_CHECK_S)
        finally:
            await client.close()

    async def run(self, publish: Publish) -> None:
        """Publish the Services until cancelled.

        Raises:
            SourceError: The credentials can't be used.
        """

        def publish_here(snapshot: Snapshot) -> None:
            self.location = self._source.location
            publish(self.services.follow(snapshot))
            self.published.set()

        await first_of(self.dialer.run(), self._source.run(publish_here))

    def status(self) -> SourceStatus:
        return self._source.status()

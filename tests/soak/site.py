"""The cluster of a soak: an API server, the pods, and both sides."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.cluster.api_client import Api
from tests.cluster.build import ensure_binaries
from tests.cluster.control_plane import ControlPlane
from tests.cluster.credentials import NODE_PROXIER
from tests.cluster.kube_proxy import USER, USERS, find_kube_proxy, kube_proxy_command
from tests.node.clients import Client
from tests.node.load import pass_time
from userspace_proxy_testing.sandbox import Sandbox

from .requests import ENDPOINT_DIES
from .shop import Shop
from .sides import KubeProxy, Side, UserspaceProxy

# Longer than the client keeps a connection, as a pod's grace period should be.
GRACE_S = 4.0
# The seconds until a dead endpoint leaves its slice, as if by the failure of its readiness probe.
DEAD_S = 2.0
QUIET_S = 2.0


class Site:
    """A cluster with two proxies, and the changes that are made to it.

    Args:
        folder: An empty folder.
        flags: This proxy's flags.
    """

    def __init__(self, folder: Path, flags: Sequence[str]) -> None:
        binaries, program = ensure_binaries(), find_kube_proxy()
        with contextlib.ExitStack() as stack:
            sandbox = stack.enter_context(Sandbox())
            ours, theirs, pods = sandbox.node, sandbox.add_node(), sandbox.add_node()
            self._control_plane = stack.enter_context(
                ControlPlane(
                    binaries,
                    prefix=pods.prefix,
                    bind_address=str(pods.ip),
                    users=USERS,
                )
            )
            self._control_plane.grant_node_proxier()
            client = Client(pods)
            stack.callback(client.close)
            api = Api(client, self._control_plane)
            stack.callback(api.close)
            for node in (ours, theirs):
                api.put("/api/v1/nodes", {"metadata": {"name": node.name}})
                status = {"addresses": [{"type": "InternalIP", "address": str(node.ip)}]}
                item = {"metadata": {"name": node.name}, "status": status}
                api.ask("PUT", f"/api/v1/nodes/{node.name}/status", item)
            self.shop = Shop(api, pods)
            kubeconfig = self._control_plane.kubeconfig_for
            self.ours = UserspaceProxy(ours, folder / "ours", kubeconfig(NODE_PROXIER), flags)
            command = kube_proxy_command(program, theirs, kubeconfig(USER))
            self.theirs = KubeProxy(theirs, folder / "theirs", command)
            self.sides: tuple[Side, ...] = (self.ours, self.theirs)
            for side in self.sides:
                stack.callback(side.close)
                side.start()
                side.wait_until_served()
                side.shorten_conntrack()
            self._stack = stack.pop_all()

    @property
    def changes(self) -> Mapping[str, Callable[[], object]]:
        """All changes by name, in order; each change returns when it is complete."""
        return {
            "quiet": lambda: pass_time(QUIET_S),
            "rolling update": self._roll,
            "Services change": self._churn,
            ENDPOINT_DIES: self._kill_endpoint,
            "worker killed": self._kill_worker,
            "proxy restarted": self._restart_proxies,
            "proxy killed": self._kill_proxies,
            "API server restarted": self._restart_api_server,
        }

    def _kill_worker(self) -> None:
        self.ours.kill_worker()
        pass_time(QUIET_S)

    def _restart_proxies(self) -> None:
        for side in self.sides:
            side.restart()
        pass_time(QUIET_S)

    def _kill_proxies(self) -> None:
        for side in self.sides:
            side.crash()
        pass_time(QUIET_S)

    def _roll(self) -> None:
        for _ in self.shop.web:
            old = self.shop.begin_replacement()
            pass_time(GRACE_S)
            self.shop.put_web()
            self.shop.stop_server(old)
            self.shop.start_server(old)

    def _churn(self) -> None:
        for _ in self.shop.churn():
            pass_time(QUIET_S / 2)

    def _kill_endpoint(self) -> None:
        name = self.shop.web[0]
        self.shop.stop_server(name)
        pass_time(DEAD_S)
        self.shop.start_server(name)
        pass_time(QUIET_S)

    def _restart_api_server(self) -> None:
        self._control_plane.stop_apiserver()
        pass_time(QUIET_S)
        self._control_plane.start_apiserver()
        pass_time(QUIET_S)

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

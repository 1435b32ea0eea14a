"""Deploys kube-proxy as kubeadm does: ServiceAccount, role binding, ConfigMap, DaemonSet.

Other tests compare the chart's objects with these. As in kind's nodes, which are containers,
kube-proxy leaves the conntrack limit unchanged.
"""

from __future__ import annotations

from pathlib import Path

from ..objects import Object, made
from .cluster import Cluster
from .families import IPV4, listed

HERE = Path(__file__).parent
DAEMON_SET = HERE.parent / "kubeadm-kube-proxy.yaml"
CONFIG_MAP = HERE.parents[1] / "unit/config/kubeadm-1.36.yaml"
# The server's address and the mode in CONFIG_MAP.
_SERVER = "https://192.0.2.10:6443"
_MODE = 'mode: ""'
_NO_LIMIT = ("maxPerCore: null", "maxPerCore: 0")
ACCOUNT = "kube-proxy"
NAMESPACE = "kube-system"


def deploy(cluster: Cluster, mode: str = "") -> None:
    """Deploy kube-proxy on every node; return once it is ready there.

    Args:
        cluster: A cluster without a Service proxy.
        mode: kube-proxy's mode; empty for kubeadm's default, iptables.
    """
    config = CONFIG_MAP.read_text()
    pods = listed(family.pods for family in cluster.families)
    for old, new in (
        (_SERVER, cluster.control_plane.server),
        _NO_LIMIT,
        (_MODE, f'mode: "{mode}"'),
        (f"bindAddress: {IPV4.wildcard}", f'bindAddress: "{cluster.families[0].wildcard}"'),
        (f"clusterCIDR: {IPV4.pods}", f"clusterCIDR: {pods}"),
    ):
        assert config.count(old) == 1, f"cannot find {old!r} once in {CONFIG_MAP}"
        config = config.replace(old, new)
    cluster.control_plane.apply(*_account())
    documents = f"{config}\n---\n{DAEMON_SET.read_text()}"
    cluster.control_plane.kubectl("apply", "-f", "-", input=documents)
    wait_for_rollout(cluster, "kube-proxy")


def wait_for_rollout(cluster: Cluster, daemon_set: str, within_s: int = 200) -> None:
    """Wait until the newest pods of a DaemonSet in kube-system are ready on every node."""
    rollout = ("rollout", "status", "daemonset", daemon_set, f"--timeout={within_s}s")
    cluster.kubectl("-n", NAMESPACE, *rollout)


def _account() -> list[Object]:
    account = made("ServiceAccount", ACCOUNT, namespace=NAMESPACE)
    group = "rbac.authorization.k8s.io"
    binding = made("ClusterRoleBinding", "kubeadm:node-proxier", version=f"{group}/v1")
    role = {"apiGroup": group, "kind": "ClusterRole", "name": "system:node-proxier"}
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}
    return [account, {**binding, "roleRef": role, "subjects": [subject]}]

"""A cluster in namespaces: it works, and nothing is left of it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable

import pytest

from ..waiting import wait_for
from .cluster import Cluster
from .images import AGNHOST_NAMES

pytestmark = [pytest.mark.cluster, pytest.mark.netns, pytest.mark.timeout(300)]

[AGNHOST, _] = AGNHOST_NAMES
TIMEOUT = "--timeout=100s"
"""kubectl waits for half a minute otherwise, which pods may need on a busy machine."""
WEB = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "labels": {"app": "web"}},
    "spec": {
        "nodeName": "node-1",
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "web", "image": AGNHOST, "args": ["netexec"]}],
    },
}
CLIENT = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "client"},
    "spec": {
        "nodeName": "node-2",
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "client", "image": AGNHOST}],
    },
}
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web"},
    "spec": {
        "ipFamilyPolicy": "PreferDualStack",
        "selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": 8080}],
    },
}


def test_a_pod_reaches_a_service_on_another_node_by_its_name_over_each_family(
    real_cluster: Cluster,
) -> None:
    items = {"apiVersion": "v1", "kind": "List", "items": [WEB, CLIENT, SERVICE]}
    real_cluster.control_plane.kubectl("apply", "-f", "-", input=json.dumps(items))
    real_cluster.kubectl("wait", "--for=condition=Ready", "pod/web", "pod/client", TIMEOUT)
    for family in real_cluster.families:
        option = f"--{family.name.lower()}"
        command = ("exec", "client", "--", "curl", "-s", option, "http://web/hostname")
        ask = functools.partial(real_cluster.control_plane.kubectl, *command, check=False)
        wait_for(
            f"the Service to be served by name over {family.name}",
            functools.partial(_is_web, ask),
            hint=ask,
        )


def _is_web(ask: Callable[[], str]) -> bool:
    return ask() == "web"

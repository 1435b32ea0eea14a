"""The chart's roles of ``view.create`` suffice for users who read all nodes."""

from __future__ import annotations

import re

import pytest

from tests.tools.clones import ROOT

from .chart import DEPLOY
from .control_plane import ControlPlane
from .rights import OF_EVERYBODY, rights_of

pytestmark = [pytest.mark.cluster]

VIEW = DEPLOY / "view.yaml"
GROUPS = ["on-call", "system:authenticated"]
EVERYWHERE = {
    "list services", "watch services", "list nodes",
    "list endpointslices.discovery.k8s.io", "watch endpointslices.discovery.k8s.io",
    *OF_EVERYBODY,
}  # fmt: skip
OF_THE_RELEASE = {
    "list pods", "watch pods", "list daemonsets.apps",
    "get pods/portforward", "create pods/portforward",
}  # fmt: skip


def commands_in(text: str) -> list[list[str]]:
    """Return the documented kubectl commands that bind the roles, without ``kubectl``."""
    found = re.findall(r"kubectl ((?:-n \S+ )?create (?:cluster)?rolebinding .*)", text)
    return [command.replace("GROUP", GROUPS[0]).split() for command in found]


def test_a_user_bound_as_documented_can_only_read_node_status(
    control_plane: ControlPlane,
) -> None:
    control_plane.kubectl("apply", "-f", str(VIEW))
    bind = commands_in((ROOT / "docs/security.md").read_text())
    assert len(bind) == 2
    for command in bind:
        control_plane.kubectl(*command)

    def rights(namespace: str) -> set[str]:
        return rights_of(control_plane, "alice", GROUPS, namespace=namespace)

    assert rights("kube-system") == EVERYWHERE | OF_THE_RELEASE
    assert rights("shop") == EVERYWHERE

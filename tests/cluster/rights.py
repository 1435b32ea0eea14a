"""An account's rights, as reported by the real API server's authorizer."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import yaml

from .control_plane import ControlPlane
from .credentials import NODE_PROXIER
from .objects import made
from .waiting import wait_for

VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
_SUBRESOURCES = (
    "services/status", "nodes/status", "nodes/proxy", "pods/exec", "pods/log", "pods/attach",
    "pods/portforward", "serviceaccounts/token",
)  # fmt: skip
OF_EVERYBODY = {
    "create selfsubjectaccessreviews.authorization.k8s.io",
    "create selfsubjectrulesreviews.authorization.k8s.io",
    "create selfsubjectreviews.authentication.k8s.io",
}
"""The rights that every account has to query its own rights: system:basic-user."""


def rights_of(
    control_plane: ControlPlane, user: str, groups: Sequence[str], *, namespace: str
) -> set[str]:
    """Create a namespace; return the verbs and resources that the user is granted in it."""
    control_plane.kubectl("create", "namespace", namespace, check=False)
    wait_for(
        "the authorizer to know the role",
        lambda: control_plane.kubectl(
            "auth", "can-i", "list", "services", f"--as={user}",
            *(f"--as-group={group}" for group in groups), check=False,
        ).startswith("yes"),
    )  # fmt: skip
    listed = control_plane.kubectl("api-resources", "--no-headers", "-o", "name").split()
    assert {"secrets", "pods", "configmaps", "clusterroles.rbac.authorization.k8s.io"} < {*listed}
    asked = list(itertools.product(VERBS, [*listed, *_SUBRESOURCES]))
    reviews = []
    for verb, resource in asked:
        whole, _, subresource = resource.partition("/")
        name, _, group = whole.partition(".")
        attributes = {"verb": verb, "resource": name, "group": group, "subresource": subresource}
        spec: dict[str, object] = {"user": user, "groups": list(groups)}
        spec["resourceAttributes"] = {**attributes, "namespace": namespace}
        kind = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
        reviews.append({**kind, "spec": spec})
    items = {"apiVersion": "v1", "kind": "List", "items": reviews}
    text = control_plane.kubectl(
        "create", "-f", "-", "--template={{.status.allowed}} ", input=json.dumps(items)
    )
    answers = text.split()
    return {" ".join(pair) for pair, answer in zip(asked, answers, strict=True) if answer == "true"}


_MANIFEST = Path(__file__).parents[2] / "examples/deploy/wake.yaml"


def grant_wake(control_plane: ControlPlane, namespace: str = "default") -> None:
    """Create a namespace; grant the rights to scale its workloads and to share its Leases."""
    text = _MANIFEST.read_text().replace("namespace: default", f"namespace: {namespace}")
    objects = [made("Namespace", namespace)]
    for item in yaml.safe_load_all(text):
        if item["kind"] == "RoleBinding":
            item["subjects"] = [{"kind": "User", "name": NODE_PROXIER}]
        objects.append(item)
    control_plane.apply(*objects)

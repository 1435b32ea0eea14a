"""``explain`` with a real API server and without a proxy, for a user of one namespace."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from .control_plane import ControlPlane
from .credentials import NODE_PROXIER
from .objects import made, pod
from .waiting import wait_for

pytestmark = pytest.mark.cluster

NAMESPACE = "shop"
RESOURCES = "services,endpointslices.discovery.k8s.io,pods"


def test_a_user_of_one_namespace_sees_which_label_is_wrong(control_plane: ControlPlane) -> None:
    inside, run = ("-n", NAMESPACE), control_plane.kubectl
    run("create", "namespace", NAMESPACE)
    run(*inside, "create", "role", "reader", "--verb=list", f"--resource={RESOURCES}")
    run(*inside, "create", "rolebinding", "reader", "--role=reader", f"--user={NODE_PROXIER}")
    question = (*inside, "auth", "can-i", "list", "pods")
    wait_for("the role", lambda: run(*question, user=NODE_PROXIER, check=False).startswith("yes"))
    spec = {"selector": {"app": "cart"}, "ports": [{"port": 80, "targetPort": "http"}]}
    container = {"name": "web", "image": "registry.example/web:1"}
    cart = pod("cart-1", container, labels={"app": "crt"})
    control_plane.apply(made("Service", "cart", spec), cart, namespace=NAMESPACE)
    kubeconfig = f"--kubeconfig={control_plane.kubeconfig_for(NODE_PROXIER)}"
    done = subprocess.run(
        [sys.executable, "-m", "userspace_proxy", "explain", "shop/cart", "--pods", kubeconfig],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"NO_PROXY": "*"},
    )
    assert done.returncode == 3
    assert "warning: no node is asked" in done.stderr
    assert "No pod in shop has the labels app=cart; pod cart-1 has app=crt." in done.stdout

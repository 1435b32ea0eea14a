"""``explain`` with a real API server and without a proxy, also as a kubectl plugin."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from .control_plane import ControlPlane
from .credentials import NODE_PROXIER
from .objects import Object, made, pod
from .waiting import wait_for

pytestmark = pytest.mark.cluster

NAMESPACE = "shop"
PROGRAM = (sys.executable, "-m", "userspace_proxy")
RESOURCES = "services,endpointslices.discovery.k8s.io,pods"


@pytest.fixture(scope="module")
def shop(control_plane: ControlPlane) -> ControlPlane:
    """A control plane with a user who may only list objects of the namespace shop."""
    run = control_plane.kubectl
    run("create", "namespace", NAMESPACE)
    inside = ("-n", NAMESPACE)
    run(*inside, "create", "role", "reader", "--verb=list", f"--resource={RESOURCES}")
    run(*inside, "create", "rolebinding", "reader", "--role=reader", f"--user={NODE_PROXIER}")
    question = (*inside, "auth", "can-i", "list", "pods")
    wait_for("the role", lambda: run(*question, user=NODE_PROXIER, check=False).startswith("yes"))
    return control_plane


def service(name: str) -> Object:
    spec = {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": "http"}]}
    return made("Service", name, spec)


def explain(control_plane: ControlPlane, *words: str) -> tuple[int, str]:
    """Run explain as a user without access to nodes; return exit status and output."""
    kubeconfig = f"--kubeconfig={control_plane.kubeconfig_for(NODE_PROXIER)}"
    done = subprocess.run(
        [*PROGRAM, "explain", *words, kubeconfig],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"NO_PROXY": "*"},
    )
    assert not done.stdout or "warning: no node is asked" in done.stderr
    return done.returncode, done.stdout or done.stderr


def test_a_user_of_one_namespace_sees_which_label_is_wrong(shop: ControlPlane) -> None:
    container = {"name": "web", "image": "registry.example/web:1"}
    cart = pod("cart-1", container, labels={"app": "crt"})
    shop.apply(service("cart"), cart, namespace=NAMESPACE)
    status, text = explain(shop, "shop/cart")
    assert status == 3
    assert "Clients are refused: no EndpointSlice belongs to shop/cart." in text
    assert text.splitlines()[-1].endswith(" --pods")
    status, text = explain(shop, "shop/cart", "--pods")
    assert status == 3
    assert "No pod in shop has the labels app=cart; pod cart-1 has app=crt." in text

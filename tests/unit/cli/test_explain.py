import json

import pytest

from tests.unit.port_numbers import free_port
from tests.unit.status.views import (
    make_calm_view,
    make_endpoint,
    make_frontend,
    make_port,
    make_view,
)
from userspace_proxy.cli import main

WEB = """\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.10, ports: [{port: 80, name: http}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: NAME, port: PORT}]
endpoints: [{addresses: [127.0.0.1]}]
"""


@pytest.fixture
def manifests(tmp_path):
    path = tmp_path / "web.yaml"

    def write(name="http", port=8080):
        path.write_text(WEB.replace("NAME", name).replace("PORT", str(port)))
        return f"--manifests={path}"

    return write


def test_a_service_of_a_running_proxy_is_explained(serve_view, capsys):
    assert main(["explain", "shop/web", serve_view(make_calm_view())]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("shop/web, from the proxy at 127.0.0.1:")
    assert "  ✓ endpoints  2 of 2 used" in lines
    assert lines[-2] == "Clients are served by 2 endpoints."
    assert lines[-1].startswith("next: userspace-proxy explain shop/web --server=127.0.0.1:")


def test_manifests_are_explained_without_a_proxy(manifests, capsys):
    assert main(["explain", "shop/web", manifests()]) == 0
    assert "Clients would be served by 1 endpoint." in capsys.readouterr().out


def test_a_mistake_in_manifests_is_status_3(manifests, capsys):
    assert main(["explain", "shop/web", manifests(name="web"), "-o", "json"]) == 3
    explained = json.loads(capsys.readouterr().out)
    assert explained["sentence"] == (
        'Clients are refused: its endpoints have no port named "http"; they have "web"'
    )


def test_dials_are_made_only_if_asked_for(manifests, capsys):
    words = ["explain", "shop/web", manifests(port=free_port())]
    assert main(words) == 0
    assert " dial " not in capsys.readouterr().out
    assert main([*words, "--probe"]) == 3
    assert "1 of 1 used endpoint failed: 127.0.0.1:" in capsys.readouterr().out


def test_only_tcp_is_dialled_also_at_the_services_address(serve_view, capsys):
    endpoint = make_endpoint(f"127.0.0.1:{free_port()}")
    address = make_frontend(f"127.0.0.1:{free_port()}", "ClusterIP", "refused")
    port = make_port(endpoints=(endpoint,), frontends=(address,))
    udp = make_port("dns", protocol="UDP", endpoints=(endpoint,))
    server = serve_view(make_view(port, udp))
    assert main(["explain", "shop/dns", "--probe", server]) == 0
    assert " dial " not in capsys.readouterr().out
    assert main(["explain", "shop/web", "--probe", server]) == 3
    assert capsys.readouterr().out.count(" dial ") == 2


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["shop/wbe"], 1, "there is no Service shop/wbe (did you mean shop/web?)"),
        (["shop/web", "--from=x"], 2, "--from: 'x' is not an IP address"),
        ([], 2, "explain needs NAMESPACE/NAME[:PORT] (usage: userspace-proxy explain "
         "NAMESPACE/NAME[:PORT] [flags])"),
    ],
)  # fmt: skip
def test_wrong_words_are_one_line(words, status, message, manifests, capsys):
    assert main(["explain", *words, manifests()]) == status
    assert capsys.readouterr().err == f"error: {message}\n"


def test_a_problem_of_another_file_is_a_warning(manifests, tmp_path, capsys):
    flag = manifests()
    (tmp_path / "other.yaml").write_text("{")
    assert main(["explain", "shop/web", f"--manifests={tmp_path}"]) == 0
    assert capsys.readouterr().err.startswith(f"warning: {tmp_path}/other.yaml")
    assert flag


def test_a_client_is_judged(serve_view, capsys):
    assert main(["explain", "shop/web", "--from=10.0.0.1", serve_view(make_calm_view())]) == 0
    assert "10.0.0.1 is admitted: every client is" in capsys.readouterr().out

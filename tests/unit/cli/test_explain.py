import asyncio
import json
import socket

import pytest

from tests.unit.port_numbers import free_port
from tests.unit.sources.kubernetes.objects import endpoint_slice, service
from tests.unit.status.views import (
    make_calm_view,
    make_endpoint,
    make_frontend,
    make_port,
    make_view,
)
from userspace_proxy.cli import main
from userspace_proxy.cli.explain import DIALLED_MAX
from userspace_proxy.facts import FrontendFacts
from userspace_proxy.kernel.own_namespace import network_namespace

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


@pytest.fixture(autouse=True)
def started_by_name(monkeypatch):
    monkeypatch.setattr("sys.argv", ["userspace-proxy"])


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
    out = capsys.readouterr().out
    assert "Clients would be served by 1 endpoint; on a node (--steering other than none) " in out
    assert main(["explain", "shop/web", manifests(), "--steering=none"]) == 0
    assert "Clients would be served by 1 endpoint." in capsys.readouterr().out


def test_manifests_are_planned_as_for_a_node_if_a_steering_mode_is_given(manifests, capsys):
    assert main(["explain", "shop/web", manifests(), "--steering=nftables"]) == 3
    assert "refused: a loopback address" in capsys.readouterr().out


def test_the_next_command_plans_with_the_same_flags(manifests, capsys):
    words = ["explain", "shop/web", manifests(), "--steering=none", "--nodeport-addresses=primary"]
    main([*words, "--kubeconfig=unused"])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"next: userspace-proxy {' '.join(words)} --probe"


def test_explain_exits_with_status_3_for_a_mistake_in_manifests(manifests, capsys):
    assert main(["explain", "shop/web", manifests(name="web"), "-o", "json"]) == 3
    explained = json.loads(capsys.readouterr().out)
    assert explained["sentence"] == (
        'Clients are refused: its endpoints have no port named "http"; they have "web"'
    )


def test_a_manifest_mistake_is_the_first_line_only_for_its_service(tmp_path, capsys):
    (tmp_path / "web.yaml").write_text(WEB.replace("NAME", "http").replace("PORT", "8080"))
    cart = WEB.partition("---")[0].replace("name: web", "name: cart").replace("80,", "80000,")
    (tmp_path / "cart.yaml").write_text(cart)
    assert main(["explain", "shop/web", f"--manifests={tmp_path}"]) == 0
    assert main(["explain", "shop/cart", f"--manifests={tmp_path}"]) == 3
    lines = capsys.readouterr().out.splitlines()
    rejected = f"Service shop/cart is rejected: {tmp_path}/cart.yaml:4: spec.ports[0].port: 80000"
    assert [line for line in lines if rejected in line] == [
        f"  ✕ service    {rejected} is not in 1–65535",
        f"{rejected} is not in 1–65535.",
    ]


DB = """\
apiVersion: v1
kind: Service
metadata:
  name: db
  namespace: shop
  annotations: {userspace-proxy.io/endpoints: "db.example.com:5432"}
spec: {clusterIP: 10.96.0.11, ports: [{port: 5432}]}
"""


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param((), id="no-name-allowed"),
        pytest.param(("--allow-endpoint-names=example.org",), id="another-name-allowed"),
    ],
)
def test_an_endpoint_name_that_no_flag_allows_is_not_looked_up(flags, tmp_path, capsys):
    said = "is not looked up: --allow-endpoint-names has no suffix of it"
    path = tmp_path / "db.yaml"
    path.write_text(DB)
    assert main(["explain", "shop/db", f"--manifests={path}", *flags]) == 3
    assert f"Clients are refused: db.example.com {said}." in capsys.readouterr().out


def test_explain_reports_an_allowed_endpoint_name_as_not_yet_looked_up(tmp_path, capsys):
    path = tmp_path / "db.yaml"
    path.write_text(DB)
    flags = [f"--manifests={path}", "--allow-endpoint-names=example.com"]
    assert main(["explain", "shop/db", *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    said = "Clients would be served once db.example.com is looked up"
    shown = [line for line in lines if "✓" in line or "looked up" in line]
    assert shown == [f"  · endpoints  {said}", f"{said}."]
    path.write_text(DB.replace("annotations: {", "annotations: {userspace-proxy.io/hold: 60s, "))
    assert main(["explain", "shop/db", *flags]) == 0
    assert "Clients would wait for an endpoint for 1 min: " in capsys.readouterr().out


def test_endpoints_are_dialled_only_with_the_probe_flag(manifests, capsys):
    words = ["explain", "shop/web", manifests(port=free_port())]
    assert main(words) == 0
    assert " dial " not in capsys.readouterr().out
    assert main([*words, "--probe"]) == 3
    assert "1 of 1 used endpoint failed: 127.0.0.1:" in capsys.readouterr().out


def test_only_tcp_ports_are_dialled_at_the_service_address_and_endpoints(serve_view, capsys):
    endpoint = make_endpoint(f"127.0.0.1:{free_port()}")
    address = make_frontend(f"127.0.0.1:{free_port()}", "ClusterIP", "refused")
    port = make_port(endpoints=(endpoint,), frontends=(address,))
    udp = make_port("dns", protocol="UDP", endpoints=(endpoint,))
    of_both = make_port(
        "web", port="udp", protocol="UDP", endpoints=(endpoint,), frontends=(address,)
    )
    server = serve_view(make_view(port, of_both, udp))
    assert main(["explain", "shop/dns", "--probe", server]) == 0
    assert " dial " not in capsys.readouterr().out
    assert main(["explain", "shop/web", "--probe", server]) == 3
    assert capsys.readouterr().out.count(" dial ") == 2


def test_the_requested_port_of_a_range_is_dialled(serve_view, capsys):
    with socket.create_server(("127.0.0.1", 0)) as at:
        number = at.getsockname()[1]
        frontend = FrontendFacts(f"127.0.0.1:{number - 1}–{number + 1}", "ClusterIP")
        server = serve_view(make_view(make_port(endpoints=(), frontends=(frontend,))))
        for asked, dialled in (
            (f":{number}", [f"127.0.0.1:{number} accepts"]),
            (":http", []),
            ("", []),
        ):
            main(["explain", f"shop/web{asked}", "--probe", server])
            said = [line for line in capsys.readouterr().out.splitlines() if " dial " in line]
            assert len(said) == len(dialled)
            assert all(part in "".join(said) for part in dialled)


def test_an_endpoint_rejected_by_the_proxy_is_not_dialled(serve_view, capsys):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        refused = make_endpoint(address, "refused: a loopback address", False)
        view = make_view(make_port(endpoints=(refused,), frontends=()))
        assert main(["explain", "shop/web", "--probe", serve_view(view)]) == 3
        with pytest.raises(BlockingIOError):
            server.accept()
    assert "1 endpoint not dialled, because the proxy refuses to" in capsys.readouterr().out


def test_a_dialled_host_name_is_not_shown_as_a_pod(serve_view, capsys):
    closed = f"127.0.0.1:{free_port()}"
    port = make_port(frontends=(), endpoints=(make_endpoint(closed, host="db.example.com"),))
    assert main(["explain", "shop/web", "--probe", serve_view(make_view(port))]) == 3
    hint = next(line for line in capsys.readouterr().out.splitlines() if "->" in line)
    assert "db.example.com" in hint


def test_endpoints_beyond_the_dial_limit_are_counted(serve_view, capsys):
    with socket.create_server(("", 0), backlog=2 * DIALLED_MAX) as server:
        number = server.getsockname()[1]
        endpoints = [make_endpoint(f"127.0.1.{n}:{number}") for n in range(2 * DIALLED_MAX)]
        view = make_view(make_port(endpoints=endpoints, frontends=()))
        assert main(["explain", "shop/web", "--probe", serve_view(view)]) == 0
    out = capsys.readouterr().out
    assert f"{DIALLED_MAX} endpoints not dialled, because the Service has so many" in out
    assert f"{DIALLED_MAX} used endpoints dialled from this machine, without a failure" in out


def test_explain_dials_nothing_for_a_proxy_in_another_network(serve_view, capsys):
    endpoint = make_endpoint(f"127.0.0.1:{free_port()}")
    here = network_namespace()
    for inode, status, dials, last in (
        (here, 3, ["1 of 1 used endpoint failed"], "next: kubectl"),
        (here + 1, 0, ["Nothing was dialled: the proxy is in another"], "nothing was dialled."),
    ):
        view = make_view(make_port(endpoints=(endpoint,), frontends=()), network_namespace=inode)
        assert main(["explain", "shop/web", "--probe", serve_view(view)]) == status
        out = capsys.readouterr().out
        lines = [line.split("dial       ")[1] for line in out.splitlines() if " dial " in line]
        assert [line[: len(said)] for line, said in zip(lines, dials, strict=True)] == dials
        assert last in out.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["shop/wbe"], 1, "there is no Service shop/wbe (did you mean shop/web?)"),
        (["shop/web:nope"], 1, "shop/web has no port nope; it has 80 (http)"),
        (["shop/web", "--from=x"], 2, "--from: 'x' is not an IP address"),
        ([], 2, "explain needs NAMESPACE/NAME[:PORT] (usage: userspace-proxy explain "
         "NAMESPACE/NAME[:PORT] [flags])"),
    ],
)  # fmt: skip
def test_invalid_arguments_of_explain_are_reported_in_one_line(
    words, status, message, manifests, capsys
):
    assert main(["explain", *words, manifests()]) == status
    assert capsys.readouterr().err == f"error: {message}\n"


def test_the_error_for_a_missing_service_names_an_unreadable_file(manifests, tmp_path, capsys):
    flag = manifests()
    (tmp_path / "other.yaml").write_text("{")
    assert main(["explain", "shop/web", f"--manifests={tmp_path}"]) == 0
    assert capsys.readouterr().err.startswith(f"warning: {tmp_path}/other.yaml")
    assert main(["explain", "a/b", f"--manifests={tmp_path}"]) == 1
    said = f"no Service a/b; not everything can be read: {tmp_path}/other.yaml:1: not YAML"
    assert said in capsys.readouterr().err
    assert flag


def test_control_characters_in_a_file_name_are_escaped(manifests, tmp_path, capsys):
    manifests()
    (tmp_path / "\x1b[2J.yaml").write_text("{")
    assert main(["explain", "shop/web", f"--manifests={tmp_path}"]) == 0
    assert capsys.readouterr().err.startswith(f"warning: {tmp_path}/\\u001b[2J.yaml")


async def run(*words):
    return await asyncio.to_thread(main, ["explain", *words])


async def test_a_cluster_is_explained_without_a_proxy(api, capsys):
    api.put(service(selector={"app": "web"}))
    api.put(endpoint_slice("10.244.0.1"))
    assert await run("web", f"--master={api.url}", "--steering=none") == 0
    first, slices, *lines = capsys.readouterr().out.splitlines()
    assert slices.startswith("  · slices     10.244.0.1 ")
    assert [first, *lines] == [
        f"default/web, from {api.url}",
        "default/web (IPv4)",
        "  ✓ address    10.96.7.1:80/TCP, ClusterIP",
        "  ✓ endpoints  1 of 1 used",
        "               ✓ 10.244.0.1:8080: ready",
        "",
        "Clients would be served by 1 endpoint.",
        f"next: userspace-proxy explain default/web --master={api.url} --steering=none --probe",
    ]


async def test_without_the_plugin_the_plan_is_explained_with_a_warning(api, capsys, monkeypatch):
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: ())
    api.put(service())
    api.put(endpoint_slice("10.244.0.1"))
    assert await run("web", f"--master={api.url}") == 0
    shown = capsys.readouterr()
    assert "Clients would be served by 1 endpoint." in shown.out
    client = "kubectl-userspace-proxy"
    missing = (
        f"explain of all nodes is a part of {client}, which isn't installed "
        f"(in a checkout: pip install . ./{client})\n"
    )
    planned = "no node is asked, so this is planned from the API server"
    assert shown.err == f"warning: {planned}: {missing}"
    assert await run("web", f"--master={api.url}", "--node=node-1") == 2
    assert capsys.readouterr().err == f"error: {missing}"


async def test_the_next_command_repeats_the_users_flags(api, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/bin/kubectl-userspace_proxy", "explain"])
    api.put(service())
    api.put(endpoint_slice("10.244.0.1"))
    asked = [f"--master={api.url}", "--from=192.0.2.7"]
    assert await run("web", *asked) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"next: kubectl userspace-proxy explain default/web {' '.join(asked)} --probe"
    )


async def test_pods_are_not_read_without_the_pods_flag(api, capsys):
    api.put(service(selector={"app": "web"}))
    api.put({"kind": "Pod", "metadata": {"name": "a", "labels": {"app": "wbe"}}})
    master = f"--master={api.url}"
    assert await run("web", master) == 3
    assert not [request for request in api.requests if "/default/pods" in request]
    assert f"next: userspace-proxy explain default/web {master} --pods\n" in capsys.readouterr().out
    assert await run("web", master, "--pods") == 3
    assert "No pod in default has the labels app=web; pod a has app=wbe." in capsys.readouterr().out


def test_the_pods_flag_requires_an_api_server(manifests, capsys):
    assert main(["explain", "shop/web", "--pods", "--server=:1"]) == 2
    assert main(["explain", "shop/web", "--pods"]) == 2
    assert main(["explain", "shop/web", "--pods", manifests()]) == 2
    assert capsys.readouterr().err.count("--pods needs --kubeconfig") == 3


async def test_the_plugin_uses_the_current_kubeconfig_context(api, monkeypatch, tmp_path, capsys):
    api.put(service())
    kubeconfig = tmp_path / "config"
    text = (
        "current-context: c\ncontexts: [{name: c, context: {cluster: c, user: u}}]\n"
        f"clusters: [{{name: c, cluster: {{server: '{api.url}'}}}}]\n"
        "users: [{name: u, user: {}}]\n"
    )
    kubeconfig.write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.setattr("sys.argv", ["/usr/bin/kubectl-userspace_proxy"])
    assert await run("web") == 3
    assert "no EndpointSlice belongs to default/web" in capsys.readouterr().out
    other = service(name="db")
    other["metadata"]["namespace"] = "shop"
    api.put(other)
    kubeconfig.write_text(text.replace("user: u}}", "user: u, namespace: shop}}"))
    assert await run("db") == 3
    assert "no EndpointSlice belongs to shop/db" in capsys.readouterr().out
    assert await run("web") == 1
    error = "error: there is no Service shop/web; default/web exists\n"
    assert capsys.readouterr().err == error


async def test_a_context_is_found_in_any_file_that_the_variable_kubeconfig_lists(
    api, monkeypatch, tmp_path, capsys
):
    api.put(service())
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("current-context: gone\nusers: [{name: u, user: {}}]\n")
    context = "{name: c, context: {cluster: c, user: u}}"
    cluster = f"{{name: c, cluster: {{server: '{api.url}'}}}}"
    second.write_text(f"contexts: [{context}]\nclusters: [{cluster}]\n---\n")
    monkeypatch.setenv("KUBECONFIG", f"/missing:{first}:{second}")
    assert await run("web", "--context=c", "--pods") == 3
    out = capsys.readouterr().out
    assert "no EndpointSlice belongs to default/web" in out
    assert await run("web", "--context=d") == 1
    assert capsys.readouterr().err == (
        f"error: cannot use kubeconfig {first}, {second}: contexts: --context=d is not among them: "
        "known: 'c'\n"
    )
    assert await run("web", "--cluster=c", "--user=u", "--context=c") == 3


def test_a_failed_credential_plugin_is_reported_in_one_line(tmp_path, capsys):
    plugin = tmp_path / "plugin"
    plugin.write_text("#!/bin/sh\necho open https://login.example.com >&2\nexit 1\n")
    plugin.chmod(0o755)
    exec_ = (
        "{apiVersion: client.authentication.k8s.io/v1, command: ./plugin, interactiveMode: Never}"
    )
    config = tmp_path / "config"
    config.write_text(
        "current-context: a\ncontexts: [{name: a, context: {cluster: a, user: a}}]\n"
        "clusters: [{name: a, cluster: {server: 'https://127.0.0.1:1'}}]\n"
        f"users: [{{name: a, user: {{exec: {exec_}}}}}]\n"
    )
    assert main(["explain", "shop/web", f"--kubeconfig={config}"]) == 1
    assert capsys.readouterr().err == (
        f"error: cannot use kubeconfig {config}: exec: plugin ended with 1\n"
    )

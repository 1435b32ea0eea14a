"""A command in a sandbox reaches the Services of manifests by address and by name."""

import os
import subprocess
import sys

import pytest

from tests.node.processes import readable_folder, readable_runtime
from userspace_proxy.cli import main
from userspace_proxy.sources import load_state
from userspace_proxy_testing.commands.sandbox import unserved

MANIFESTS = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.10, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}, {name: sctp, port: 9, protocol: SCTP}]
endpoints:
- {addresses: [10.244.0.3]}
- {addresses: [10.244.0.9], conditions: {ready: false}}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: None, ports: [{name: sql, port: 5432}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: sql, port: 5432, protocol: TCP}]
endpoints: [{addresses: [10.244.0.5], hostname: db-0}]
"""
# The program that the command runs; it exits with status 7.
SCRIPT = """
import socket, urllib.request
for host in ("10.96.0.10", "web", "web.shop.svc.cluster.local", "db-0.db:5432"):
    print(urllib.request.urlopen(f"http://{host}/").read().decode().strip())
print(socket.gethostbyname_ex("db.shop")[2])
raise SystemExit(7)
"""


@pytest.fixture
def manifests(tmp_path):
    path = tmp_path / "shop.yaml"
    path.write_text(MANIFESTS)
    return path


BROKEN = (
    MANIFESTS
    + """---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec: {clusterIP: 10.96.0.20, selector: {app: api}, ports: [{port: 80}]}
"""
)
# The script runs a user's commands, and exits with the status of explain.
ASK = """
userspace-proxy() { "$PYTHON" -m userspace_proxy "$@"; }
userspace-proxy status; echo $?
userspace-proxy explain shop/api
"""


def test_an_unserved_service_is_printed_and_status_and_explain_work_inside(tmp_path):
    path = tmp_path / "shop.yaml"
    path.write_text(BROKEN)
    run = ["-m", "userspace_proxy", "sandbox", f"--manifests={path}", "--", "bash", "-c", ASK]
    done = subprocess.run(
        [sys.executable, *run],
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=100,
    )
    said = "Clients are refused: no EndpointSlice belongs to shop/api"
    assert done.stderr.startswith(f"warning: shop/api: {said} -> The EndpointSlice controller ")
    assert len(done.stderr.splitlines()) == 1
    head, line, *lines = done.stdout.splitlines()
    assert head.startswith("node-1  local  2 Service ports, 1 needs attention")
    assert line.startswith("  ! shop/api ")
    assert line.endswith(said)
    assert lines[lines.index("3") + 1] == "shop/api, from the proxy at 127.0.0.1:10249"
    assert f"{said}." in lines
    assert done.returncode == 3


def test_only_the_first_20_unserved_services_are_listed(tmp_path):
    services = [
        BROKEN.rpartition("---")[2].replace("name: api", f"name: api-{n}") for n in range(25)
    ]
    services = [text.replace("0.20", f"0.{n + 20}") for n, text in enumerate(services)]
    (tmp_path / "shop.yaml").write_text("---".join(services))
    state = load_state(tmp_path)
    assert not state.problems
    lines = list(unserved(state.snapshot))
    assert (len(lines), lines[-1]) == (21, "5 more are not served: status lists them")


def test_a_port_whose_address_another_service_holds_is_listed_with_its_number(tmp_path):
    text = BROKEN.rpartition("---")[2]
    (tmp_path / "shop.yaml").write_text(f"{text}---{text.replace('name: api', 'name: db')}")
    lines = list(unserved(load_state(tmp_path).snapshot))
    assert any(line.startswith("shop/db: Port 80 is not served: ") for line in lines)


def test_an_endpoint_name_is_reported_as_not_looked_up(tmp_path):
    named = 'namespace: shop, annotations: {userspace-proxy.io/endpoints: "a.test:1"}}'
    text = BROKEN.rpartition("---")[2].replace("namespace: shop}", named)
    (tmp_path / "shop.yaml").write_text(text.replace("selector: {app: api}, ", ""))
    state = load_state(tmp_path)
    assert not state.problems
    (line,) = unserved(state.snapshot)
    said = "a.test is not looked up: --allow-endpoint-names has no suffix of it"
    assert line.startswith(f"shop/api: Clients are refused: {said}")


def test_a_command_reaches_services_by_address_and_by_name():
    with readable_runtime() as (prefix, python, env), readable_folder() as folder:
        path = folder / "shop.yaml"
        path.write_text(MANIFESTS)
        run = ("-m", "userspace_proxy", "sandbox", f"--manifests={path}", "-n", "shop", "--")
        done = subprocess.run(
            [*prefix, python, *run, python, "-c", SCRIPT],
            # The sandbox can't reach an HTTP proxy, so these variables must be ignored.
            env=os.environ | env | {"http_proxy": "http://proxy.example:3128"},
            capture_output=True,
            text=True,
            timeout=100,
        )
    web = ["web-10-244-0-3"] * 3
    assert (done.stdout.splitlines(), done.returncode) == ([*web, "db-0", "['10.244.0.5']"], 7), (
        done.stderr
    )


OWN = """
import http.server, threading, urllib.request

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"mine")

server = http.server.HTTPServer(("0.0.0.0", 8080), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(urllib.request.urlopen("http://web/").read().decode())
"""


@pytest.mark.long
def test_the_command_may_serve_its_own_endpoints(manifests):
    words = ["sandbox", f"--manifests={manifests}", "-n", "shop", "--own=web", "--"]
    done = subprocess.run(
        [sys.executable, "-m", "userspace_proxy", *words, sys.executable, "-c", OWN],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.stdout, done.returncode) == ("mine\n", 0), done.stderr


def test_an_own_service_missing_from_the_manifests_is_an_error(manifests, capsys):
    words = ["sandbox", f"--manifests={manifests}", "--own=shop/wbe", "--", "true"]
    assert main(words) == 2
    assert capsys.readouterr().err == (
        "error: --own: the manifests contain no Service shop/wbe (did you mean shop/web?)\n"
    )


@pytest.mark.long
def test_a_signal_that_kills_the_command_sets_the_exit_status(manifests):
    words = ["sandbox", f"--manifests={manifests}", "--", "sh", "-c", "kill -KILL $$"]
    done = subprocess.run([sys.executable, "-m", "userspace_proxy", *words], timeout=100)
    assert done.returncode == 128 + 9


@pytest.mark.parametrize(
    ("words", "error"),
    [
        pytest.param([], "sandbox needs --manifests", id="nothing"),
        pytest.param(["--manifests=x.yaml"], "sandbox needs a command", id="no-command"),
        pytest.param(["--manifests=x.yaml", "--"], "sandbox needs a command", id="empty-command"),
    ],
)
def test_the_sandbox_command_names_a_missing_argument(words, error, capsys):
    assert main(["sandbox", *words]) == 2
    assert capsys.readouterr().err == (
        f"error: {error} (userspace-proxy sandbox --manifests=PATH -- COMMAND)\n"
    )


def test_a_manifest_error_is_reported_before_anything_starts(tmp_path, capsys):
    path = tmp_path / "web.yaml"
    path.write_text("kind: Service\napiVersion: v1\nmetadata: {name: web}\nspec: {}\n")
    assert main(["sandbox", f"--manifests={path}", "--", "true"]) == 1
    assert "web.yaml:" in capsys.readouterr().err

"""docker-compose.yml: its syntax, and its services' processes, started without an engine.

bridge 10.213.0.0/24 ── a network namespace for each service, with its address and all names
                        in it the service's own command, in this image or from this build
"""

from __future__ import annotations

import contextlib
import runpy
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tools.clones import ROOT
from userspace_proxy_testing.sandbox import Namespace
from userspace_proxy_testing.sandbox.holder import Holder

from .build import HERE, Binaries, required_version
from .container import privileges, start_process
from .image import Image
from .waiting import wait_for

FILE = ROOT / "docker-compose.yml"
ASK = [sys.executable, "-m", "userspace_proxy_testing.sandbox.client"]
# Addresses that an engine would assign to services without one in the file.
FREE_ADDRESSES = {"etcd": "10.213.0.2", "proxy": "10.213.0.3", "manifests": "10.213.0.4"}


@pytest.fixture(scope="module")
def composed() -> Any:
    """The file as docker compose parses it, with all references resolved."""
    command = shutil.which("docker-compose")
    if command is None:
        pytest.skip("docker-compose is missing (apt-get install docker-compose)")
    done = subprocess.run([command, "-f", FILE, "config"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


def test_the_compose_file_uses_the_tested_api_server_version(composed: Any) -> None:
    version = required_version((HERE / "kube/go.mod").read_text(), "k8s.io/kubernetes")
    assert composed["services"]["kubernetes"]["image"].endswith(f":{version}")


@pytest.mark.parametrize(("status", "tries"), [(422, 2), (503, 2), (400, 1)])
def test_objects_are_sent_until_the_api_server_accepts_or_finally_rejects_them(
    status: int, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def do_PATCH(self) -> None:
            asked.append(self.path)
            self.send_response(status if len(asked) == 1 else 200)
            self.send_header("Content-Length", "3")
            self.end_headers()
            self.wfile.write(b"why")

        def log_message(self, *_words: object) -> None:
            pass

    set_up = runpy.run_path(str(ROOT / "examples/compose/set_up.py"))
    monkeypatch.setitem(set_up["patch"].__globals__, "CERTIFICATE", None)
    with HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/services/web"
            with (
                pytest.raises(OSError, match="web: 400 why")
                if status == 400
                else contextlib.nullcontext()
            ):
                set_up["patch"](url, "{}", "token")
        finally:
            server.shutdown()
    assert asked == ["/services/web"] * tries


def test_the_compose_proxy_has_the_daemon_sets_capabilities(composed: Any) -> None:
    manifest = yaml.safe_load_all((ROOT / "examples/deploy/install.yaml").read_text())
    (daemon_set,) = (one for one in manifest if one["kind"] == "DaemonSet")
    (container,) = daemon_set["spec"]["template"]["spec"]["containers"]
    proxy = composed["services"]["proxy"]
    assert proxy["image"] == container["image"]
    assert proxy["read_only"] is container["securityContext"]["readOnlyRootFilesystem"] is True
    assert proxy["cap_drop"] == container["securityContext"]["capabilities"]["drop"]
    assert proxy["cap_add"] == container["securityContext"]["capabilities"]["add"]


class World:
    """The file's services, each in its own network namespace on one bridge."""

    def __init__(
        self,
        services: Any,
        image: Image,
        binaries: Binaries,
        folder: Path,
        stack: contextlib.ExitStack,
    ) -> None:
        self._services = services
        self._image = image
        self._binaries = binaries
        self._folder = folder
        self._stack = stack
        self.host = self._namespace("host")
        self.host.configure(
            ["link add br0 type bridge", "link set br0 up", "address add 10.213.0.1/24 dev br0"]
        )
        self.addresses = {
            name: (service["networks"]["cluster"] or {}).get("ipv4_address") or FREE_ADDRESSES[name]
            for name, service in services.items()
            if name != "credentials"
        }
        (folder / "hosts").write_text(
            "127.0.0.1 localhost\n"
            + "".join(f"{address} {name}\n" for name, address in self.addresses.items())
        )

    def start(self, name: str) -> subprocess.Popen[str]:
        service = self._services[name]
        where = self._namespace(name)
        if address := self.addresses.get(name):
            self.host.configure(
                [
                    f"link add {name} type veth peer name eth0 netns {where.pid}",
                    f"link set {name} master br0 up",
                ]
            )
            where.configure(
                [
                    f"address add {address}/24 dev eth0",
                    "link set eth0 up",
                    "route add default via 10.213.0.1",
                ]
            )
        folder = self._folder / name
        folder.mkdir()
        words = [*service.get("entrypoint", self._image.entrypoint), *service["command"]]
        capabilities = {"drop": service.get("cap_drop", ["ALL"]), "add": service.get("cap_add", [])}
        limits = privileges(
            {
                "readOnlyRootFilesystem": True,
                "allowPrivilegeEscalation": False,
                "runAsUser": int(service.get("user", 0)),
                "capabilities": capabilities,
            }
        )
        log = self._stack.enter_context((self._folder / f"{name}.log").open("w"))
        return start_process(
            words, self._image, self._mounts(name, service), limits,
            where=where, folder=folder, log=log, environment=service.get("environment", {}),
        )  # fmt: skip

    def finish(self, name: str) -> None:
        """Run a service until it exits, as service_completed_successfully requires."""
        assert self.start(name).wait(60) == 0, self.log(name)

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()

    def ask(self, url: str) -> str:
        """Return the response of a URL on the host; empty if there is no response."""
        return self.host.run([*ASK, "http", url], check=False).stdout

    def _mounts(self, name: str, service: Any) -> list[str]:
        mounts = ["ro", str(self._folder / "hosts"), "/etc/hosts"]
        for volume in service.get("volumes", ()):
            source, place, *mode = volume.split(":")
            if not source.startswith("/"):
                source = str(self._folder / f"volume-{source}")
                Path(source).mkdir(exist_ok=True)
            mounts += [*(mode or ["rw"]), source, place]
        for place in service.get("tmpfs", ()):
            folder = self._folder / f"tmpfs-{name}"
            folder.mkdir()
            mounts += ["rw", str(folder), place]
        program = service.get("entrypoint", [""])[0]
        if "/" not in program and program:
            mounts += ["ro", str(self._binaries.folder / program), f"/usr/local/bin/{program}"]
        return mounts

    def _namespace(self, name: str) -> Namespace:
        holder = Holder(rootless=False, user=None, sysctls=["net/ipv4/icmp_ratelimit=0"])
        return self._stack.enter_context(Namespace(name, holder))


@pytest.mark.cluster
@pytest.mark.netns
def test_the_compose_containers_serve_a_service_and_the_page(
    composed: Any, image: Image, cluster_binaries: Binaries, tmp_path: Path
) -> None:
    with contextlib.ExitStack() as stack:
        world = World(composed["services"], image, cluster_binaries, tmp_path, stack)
        for name in ("backend-1", "backend-2", "backend-3", "etcd"):
            world.start(name)
        world.finish("credentials")
        api_server = world.start("kubernetes")
        world.finish("manifests")
        proxy = world.start("proxy")
        published = f"http://{world.addresses['proxy']}"

        def answers() -> bool:
            assert api_server.poll() is None, world.log("kubernetes")
            assert proxy.poll() is None, world.log("proxy")
            said = world.host.run(
                [*ASK, "http", f"{published}:30080/", "--count", "6"], check=False
            )
            return {*said.stdout.split()} == {"backend-1", "backend-2", "backend-3"}

        wait_for("the Service's node port", answers, hint=lambda: world.log("proxy"))
        # The Host header contains the name that the browser dialled, with the published port.
        page = world.host.run(
            ["curl", "-s", "-H", "Accept: text/html", "--resolve",
             f"localhost:10249:{world.addresses['proxy']}", "http://localhost:10249/"],
        ).stdout  # fmt: skip
        assert "<html" in page
        assert "web" in page

"""Starts an API server as envtest does: etcd and kube-apiserver, without nodes and controllers.

``KUBEBUILDER_ASSETS`` is the folder with etcd, kube-apiserver and kubectl that `setup-envtest use`
prints.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

TOKEN = "token-of-the-admin"
READY_S = 60


class ApiServer:
    """An API server whose files are in one folder."""

    def __init__(self, assets: Path, folder: Path) -> None:
        self.kubeconfig = folder / "kubeconfig"
        self._assets = assets
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start etcd and kube-apiserver; return once the API server is ready."""
        folder = self._folder
        key = folder / "service-accounts.key"
        openssl = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout"]
        subprocess.run([*openssl, "-out", str(key)], check=True)
        (folder / "tokens.csv").write_text(f"{TOKEN},admin,admin,system:masters\n")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self._run(
            "etcd",
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls=unix://{folder / 'etcd.sock'}",
            "--advertise-client-urls=http://127.0.0.1:0",
            "--listen-peer-urls=http://127.0.0.1:0",
            "--unsafe-no-fsync",
        )
        self._run(
            "kube-apiserver",
            f"--etcd-servers=unix://{folder / 'etcd.sock'}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={port}",
            f"--cert-dir={folder}",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://127.0.0.1/",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            # No controller runs that would create service accounts.
            "--disable-admission-plugins=ServiceAccount",
        )
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "test",
                    "cluster": {
                        "server": f"https://127.0.0.1:{port}",
                        "certificate-authority": str(folder / "apiserver.crt"),
                    },
                }
            ],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        self.kubeconfig.write_text(json.dumps(config))
        self._wait()

    def kubectl(self, *arguments: str, text: str = "") -> str:
        """Run kubectl, and return its output."""
        command = [str(self._assets / "kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        return subprocess.run(
            command, input=text, capture_output=True, text=True, check=True
        ).stdout

    def stop(self) -> None:
        """Stop kube-apiserver and etcd."""
        for process in reversed(self._processes):
            process.kill()
            process.wait()

    def _run(self, program: str, *flags: str) -> None:
        with (self._folder / f"{program}.log").open("wb") as log:
            command = [str(self._assets / program), *flags]
            self._processes.append(subprocess.Popen(command, stdout=log, stderr=log))

    def _wait(self) -> None:
        why = ""
        for _ in range(READY_S * 5):
            try:
                self.kubectl("get", "namespace", "default")
                return
            except subprocess.CalledProcessError as error:
                why = error.stderr
            for process in self._processes:
                try:
                    process.wait(0.1)
                except subprocess.TimeoutExpired:
                    continue
                pytest.fail(f"{process.args!r} has ended, see {self._folder}")
        pytest.fail(f"the API server is not ready: {why}")


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """Start one API server for all tests."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if not assets:
        pytest.skip("KUBEBUILDER_ASSETS isn't set: `setup-envtest use -p env` prints it")
    server = ApiServer(Path(assets), tmp_path_factory.mktemp("api-server"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def service_proxy_kubeconfig(api_server: ApiServer) -> Path:
    """Make ``kubernetes_services`` serve the Services of this API server."""
    return api_server.kubeconfig

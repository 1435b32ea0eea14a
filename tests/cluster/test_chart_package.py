"""A chart is packaged, and pushed to a registry with docker's login. helm is the real one."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from .chart_package import package, push

pytestmark = pytest.mark.long

LOGIN = base64.b64encode(b"alice:secret").decode()


class Registry(ThreadingHTTPServer):
    """A registry that takes what is pushed by alice."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Request(BaseHTTPRequestHandler):
    server: Registry

    def _answer(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _is_alice(self) -> bool:
        if self.headers.get("Authorization") == f"Basic {LOGIN}":
            return True
        self._answer(401, WWW_Authenticate='Basic realm="registry"')
        return False

    def do_GET(self) -> None:
        if not self._is_alice():
            return
        if self.path not in self.server.manifests:
            self._answer(404)
            return
        manifest = self.server.manifests[self.path]
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
        self.send_header("Content-Length", str(len(manifest)))
        self.end_headers()
        self.wfile.write(manifest)

    def do_HEAD(self) -> None:
        if self._is_alice():
            self._answer(404)

    def do_POST(self) -> None:
        if self._is_alice():
            self._answer(202, Location=f"{self.path}upload")

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._is_alice():
            return
        parts = urlsplit(self.path)
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if named := parse_qs(parts.query).get("digest"):
            assert named == [digest]
            self.server.blobs[digest] = body
        else:
            self.server.manifests[parts.path] = body
        self._answer(201, Location=self.path, Docker_Content_Digest=digest)

    def log_message(self, *_message: object) -> None:
        """Print nothing."""


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join(30)


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    """A folder with a chart as helm packages it."""
    chart, packed = tmp_path / "web", tmp_path / "dist"
    chart.mkdir()
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: web\nversion: 0.1.0\n")
    assert package(chart, packed) == 0
    return packed


def log_in(folder: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "config.json").write_text(json.dumps({"auths": {registry.address: {"auth": LOGIN}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    monkeypatch.setenv("HELM_REGISTRY_CONFIG", str(folder / "none.json"))


def test_the_registry_has_the_chart_by_its_version(
    dist: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(tmp_path, registry, monkeypatch)
    assert push(dist, f"oci://{registry.address}/charts", "--plain-http") == 0
    assert "/v2/charts/web/manifests/0.1.0" in registry.manifests
    assert (dist / "web-0.1.0.tgz").read_bytes() in registry.blobs.values()


def test_without_a_login_the_push_fails(
    dist: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("HELM_REGISTRY_CONFIG", str(tmp_path / "none.json"))
    assert push(dist, f"oci://{registry.address}/charts", "--plain-http") != 0
    assert registry.manifests == {}

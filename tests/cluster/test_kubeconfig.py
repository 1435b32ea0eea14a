"""Kubeconfigs and HTTP proxies: the results equal kubectl's for the same files and variables."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.build import Binaries
from tests.netns import Net
from tests.shell import write_program
from tests.unit.sources.kubernetes.certificates import API_TEST, API_TEST_KEY
from tests.unit.sources.kubernetes.proxy_table import CHOICES, EXCLUSIONS
from userspace_proxy.errors import SourceError
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.credentials import Credentials
from userspace_proxy.sources.kubernetes.kubeconfig_files import find_kubeconfig
from userspace_proxy.sources.kubernetes.proxies import proxy_of_environment
from userspace_proxy.sources.kubernetes.responses import TransportError

VERSION = "client.authentication.k8s.io/v1"
INFO = "info.json"
Ask = Callable[[Sequence[Path]], bool]
IDENTITY = ("Authorization", "Impersonate-")


@pytest.fixture(scope="module")
def kubectl(cluster_binaries: Binaries) -> str:
    return str(cluster_binaries.kubectl)


class Server:
    """An API server that records the user of each request."""

    def __init__(self, folder: Path) -> None:
        self.seen: list[list[tuple[str, str]]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                headers = [(name.lower(), text) for name, text in self.headers.items()]
                wanted = tuple(name.lower() for name in IDENTITY)
                server.seen.append(sorted(h for h in headers if h[0].startswith(wanted)))
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        (folder / "crt").write_text(API_TEST)
        (folder / "key").write_text(API_TEST_KEY)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(folder / "crt", folder / "key")
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join(30)
        self._http.server_close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


def environment(**more: str) -> dict[str, str]:
    return {n: t for n, t in os.environ.items() if not n.lower().endswith("_proxy")} | more


def theirs(kubectl: str, paths: Sequence[Path]) -> bool:
    """Return whether kubectl sends a request with this kubeconfig."""
    command = [kubectl, "get", "--raw", "/x", "--request-timeout=10s"]
    listed = os.pathsep.join(map(str, paths))
    done = subprocess.run(
        command,
        env=environment(KUBECONFIG=listed),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def ours(paths: Sequence[Path]) -> bool:
    """Return whether this program's client sends a request."""

    async def ask() -> None:
        kubeconfig = find_kubeconfig({"KUBECONFIG": os.pathsep.join(map(str, paths))})
        client = ApiClient(Credentials(kubeconfig=kubeconfig or ""))
        try:
            await client.open()
            assert (await client.get("/x", {})).code == 200
        finally:
            await client.close()

    try:
        asyncio.run(ask())
    except (SourceError, TransportError):
        return False
    return True


def config(server: Server, user: Mapping[str, Any], **cluster: Any) -> str:
    trust = {"certificate-authority-data": base64.b64encode(API_TEST.encode()).decode()}
    reached = {"server": server.url, "tls-server-name": "api.test", **trust, **cluster}
    return json.dumps(
        {
            "current-context": "a",
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            "clusters": [{"name": "a", "cluster": reached}],
            "users": [{"name": "a", "user": user}],
        }
    )


PLUGIN = {"apiVersion": VERSION, "command": "./plugin", "interactiveMode": "Never"}
PROVIDED = {
    **PLUGIN,
    "provideClusterInfo": True,
    "args": ["a"],
    "env": [{"name": "A", "value": ""}],
}
OIDC: dict[str, Any] = {"name": "oidc", "config": {"idp-issuer-url": "https://a", "client-id": "a"}}
CLAIMS = base64.b64encode(json.dumps({"exp": 9_999_999_999}).encode()).decode().rstrip("=")
TOKEN = f"e30=.{CLAIMS}.x"
USERS: dict[str, dict[str, Any]] = {
    "token": {"token": "t"},
    "token-file": {"tokenFile": "token"},
    "token-file-before-token": {"token": "t", "tokenFile": "token"},
    "token-beside-missing-file": {"token": "t", "tokenFile": "none"},
    "no-token-file": {"tokenFile": "none"},
    "basic": {"username": "ü", "password": "p"},
    "basic-and-token": {"token": "t", "username": "u"},
    "impersonation": {
        "token": "t",
        "as": "jane",
        "as-uid": "5",
        "as-groups": ["a b", "c"],
        "as-user-extra": {"example.org/Scope%": ["x", "y"], "Ü": ["ü"]},
    },
    "groups-alone": {"token": "t", "as-groups": ["a"]},
    "plugin": {"exec": PLUGIN},
    "plugin-and-cluster": {"exec": PROVIDED},
    "plugin-beside-token": {"exec": PLUGIN, "token": "t"},
    "plugin-that-needs-a-terminal": {"exec": {**PLUGIN, "interactiveMode": "Always"}},
    "plugin-without-mode": {"exec": {**PLUGIN, "interactiveMode": ""}},
    "old-plugin": {"exec": {**PLUGIN, "apiVersion": "client.authentication.k8s.io/v1alpha1"}},
    "plugin-that-is-missing": {"exec": {**PLUGIN, "command": "./none"}},
    "certificate-without-key": {"token": "t", "client-certificate": "crt"},
    "certificate-that-is-missing": {"client-certificate": "none", "client-key": "none"},
    "number": {"token": 5},
    "removed-provider": {"auth-provider": {"name": "gcp"}},
    "oidc": {"auth-provider": {**OIDC, "config": {**OIDC["config"], "id-token": TOKEN}}},
    "oidc-without-token": {"auth-provider": OIDC},
}


@pytest.mark.parametrize("name", USERS)
def test_a_kubeconfig_user_authenticates_as_with_kubectl(
    kubectl: str, server: Server, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "config"
    extension = {"name": "client.authentication.k8s.io/exec", "extension": {"a": [1, None]}}
    path.write_text(config(server, USERS[name], extensions=[extension]))
    (tmp_path / "token").write_text("of the file\n")
    write_program(
        tmp_path / "plugin",
        "import json, os, pathlib\n"
        f"info = pathlib.Path({str(tmp_path / INFO)!r})\n"
        'info.write_text(os.environ["KUBERNETES_EXEC_INFO"])\n'
        f'print(json.dumps({{"apiVersion": {VERSION!r}, "kind": "ExecCredential", '
        '"status": {"token": "of-the-plugin"}}))\n',
    )
    said = []
    asks: tuple[Ask, ...] = (partial(theirs, kubectl), ours)
    for ask in asks:
        server.seen.clear()
        (tmp_path / INFO).unlink(missing_ok=True)
        is_sent = ask([path])
        info = json.loads((tmp_path / INFO).read_text()) if (tmp_path / INFO).exists() else None
        said.append((is_sent, server.seen[:1], info))
    assert _lower_keys(said[1]) == _lower_keys(said[0])


def _lower_keys(said: tuple[bool, list[list[tuple[str, str]]], Any]) -> object:
    # The API server ignores the case of header names.
    is_sent, seen, info = said
    return is_sent, [sorted((name.lower(), text) for name, text in one) for one in seen], info


ENDS = {
    "as-it-is": "",
    "end": "---\n",
    "second-document": "---\nfoo: bar\n",
    "broken-second-document": "---\n[}\n",
    "comment": "# end\n",
    "key-twice": "current-context: b\ncurrent-context: a\n",
    "octal-in-an-extension": "extensions: [{name: a, extension: {mode: 0644, 1: 12:30, a: on}}]\n",
    "tab-before-a-value": "foo: \tbar\n",
    "tab-at-the-start": "foo:\n\t- bar\n",
    "not-closed": "foo: [\n",
    "other-kind": "kind: Pod\n",
    "other-version": "apiVersion: v2\n",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ENDS)
def test_a_kubeconfig_text_is_accepted_exactly_when_kubectl_accepts_it(
    kubectl: str, server: Server, tmp_path: Path, end: str, encoding: str
) -> None:
    path = tmp_path / "config"
    values = json.loads(config(server, {"token": "t"}))
    text = "".join(f"{key}: {json.dumps(value)}\r\n" for key, value in values.items())
    path.write_text(text + ENDS[end], encoding=encoding)
    assert ours([path]) == theirs(kubectl, [path])


MERGES = ("<<: *x, token: own", "token: own, <<: *x", "<<: [*x, *z]", "<<: *x, <<: *z")


@pytest.mark.parametrize("merging", MERGES, ids=["before", "after", "list", "twice"])
def test_a_yaml_merge_key_yields_the_same_token_as_in_kubectl(
    kubectl: str, server: Server, tmp_path: Path, merging: str
) -> None:
    path = tmp_path / "config"
    values = json.loads(config(server, {}))
    del values["users"]
    lines = [f"{key}: {json.dumps(value)}\n" for key, value in values.items()]
    path.write_text(
        "".join(lines) + "extensions:\n- {name: x, extension: &x {token: x}}\n"
        "- {name: z, extension: &z {token: z}}\n"
        f"users: [{{name: a, user: {{{merging}}}}}]\n"
    )
    said = []
    asks: tuple[Ask, ...] = (partial(theirs, kubectl), ours)
    for ask in asks:
        server.seen.clear()
        said.append((ask([path]), server.seen[:1]))
    assert said[0][0]
    assert said[0] == said[1]


def test_kubeconfig_files_are_merged_as_in_kubectl(
    kubectl: str, server: Server, tmp_path: Path
) -> None:
    whole = json.loads(config(server, {"token": "first"}))
    part, rest = tmp_path / "part", tmp_path / "sub" / "rest"
    other = tmp_path / "other"
    rest.parent.mkdir()
    (rest.parent / "token").write_text("beside the file")
    part.write_text(json.dumps({k: whole[k] for k in ("current-context", "contexts")}))
    user = {"users": [{"name": "a", "user": {"tokenFile": "token"}}], "current-context": "b"}
    rest.write_text(json.dumps({"clusters": whole["clusters"], **user}))
    other.write_text(json.dumps(whole))
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    asks: tuple[Ask, ...] = (partial(theirs, kubectl), ours)
    for names in (
        ("none", "empty", "part", "sub/rest"),
        ("part", "sub/rest", "other"),
        ("other", "part", "sub/rest"),
        ("sub/rest", "part"),
        ("part",),
        ("other", "folder"),
        ("other", "other"),
    ):
        paths = [tmp_path / name for name in names]
        said = []
        for ask in asks:
            server.seen.clear()
            said.append((ask(paths), server.seen[:1]))
        assert said[0] == said[1], names


class FakeProxy:
    """The HTTP proxy that the table names, in a separate network; it records requests."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self._net = Net("proxies")
        with self._net:
            self._server = socket.create_server(("127.0.0.2", 3128))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def run(self, command: Sequence[str], variables: Mapping[str, str]) -> None:
        """Run a command in the network; its output and exit status are discarded."""
        enter = ("nsenter", f"--net=/proc/self/fd/{self._net.fd}")
        subprocess.run(
            [*enter, *command],
            env=environment(**variables),
            pass_fds=[self._net.fd],
            capture_output=True,
            check=False,
        )

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join(30)
        self._server.close()
        self._net.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._server.accept()
                with peer:
                    self.asked.append(peer.recv(100))


def _table() -> Iterator[tuple[str, dict[str, str], bool]]:
    proxy = {"HTTPS_PROXY": "http://127.0.0.2:3128"}
    for server, no_proxy, is_excluded in EXCLUSIONS:
        yield server, {**proxy, "NO_PROXY": no_proxy}, not is_excluded
    yield from CHOICES


@pytest.mark.long
def test_http_proxies_are_selected_as_in_kubectl(kubectl: str) -> None:
    different = []
    with contextlib.closing(FakeProxy()) as proxy:
        for server, variables, expected in _table():
            proxy.asked.clear()
            command = (
                *(kubectl, f"--server={server}", "--insecure-skip-tls-verify", "--token=x"),
                *("--kubeconfig=/dev/null", "get", "--raw", "/x", "--request-timeout=1s"),
            )
            proxy.run(command, variables)
            found = proxy_of_environment(server, variables) is not None
            if not (bool(proxy.asked) == found == expected):
                different.append((server, variables, proxy.asked[:1], found))
    assert different == []

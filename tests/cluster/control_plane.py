"""A real Kubernetes control plane for tests: one etcd, one kube-apiserver, nothing else.

    kubectl, the agent under test ──TLS, token──▶ kube-apiserver ──Unix socket──▶ etcd ──▶ folder

As in every cluster, it allocates ClusterIPs and node ports, and validates objects. There are no
controllers: tests write EndpointSlices themselves.

Rule 1: it writes only to one temporary folder and starts only two processes; `stop` removes both.
Rule 2: every wait has a deadline, and its error shows the end of the server's log.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Self

import yaml

from .build import Binaries
from .child import Child, ControlPlaneError, accepts, serves_https, wait_until_ready
from .credentials import (
    ADMIN,
    GROUPS,
    NODE_PROXIER,
    make_service_account_key,
    render_kubeconfig,
    render_tokens,
    token_of,
)
from .waiting import wait_for

KUBECTL_DEADLINE_S = 210.0
"""The timeout of one kubectl command, which usually takes 0.1 s."""
NAMESPACE_PORT = 6443
"""The API server's usual port, used in a network namespace, where it is free."""

_INSTALL = Path(__file__).parents[2] / "examples/deploy/install.yaml"


class ControlPlane:
    """One etcd and one kube-apiserver, from `start` to `stop`; also a context manager.

    Args:
        binaries: The programs.
        prefix: A command that execs its arguments inside a network namespace without forking, like
            ``nsenter --net=… --``; empty for none. The namespace's loopback must be up.
        bind_address: An address there on which the API server listens. The certificate contains it,
            so clients dial it.
        service_cidr: The range of ClusterIPs; two, separated by a comma, for dual stack, with the
            family of ``bind_address`` first.
        apiserver_flags: Flags of kube-apiserver that override the default flags.
        etcd_data: The folder of etcd's data, which `stop` keeps; None for the temporary folder.
        users: Users in addition to `GROUPS`, each with a token and a kubeconfig, and their group.
        has_controllers: Whether controllers will create pods, which then need service accounts; the
            API server adds endpoints to the Service ``kubernetes``.
    """

    def __init__(
        self,
        binaries: Binaries,
        *,
        prefix: Sequence[str] = (),
        bind_address: str = "127.0.0.1",
        service_cidr: str = "10.96.0.0/16",
        apiserver_flags: Sequence[str] = (),
        etcd_data: Path | None = None,
        users: Mapping[str, str] | None = None,
        has_controllers: bool = False,
    ) -> None:
        self._binaries = binaries
        self._prefix = tuple(prefix)
        self._bind_address = bind_address
        self._service_cidr = service_cidr
        self._apiserver_flags = tuple(apiserver_flags)
        self._etcd_data = etcd_data
        self._groups = GROUPS | dict(users or {})
        self._has_controllers = has_controllers
        self._reserved: socket.socket | None = None
        self._port = 0
        self._folder: Path | None = None
        self._etcd: Child | None = None
        self._apiserver: Child | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    @property
    def folder(self) -> Path:
        """The temporary folder, with ``etcd.log`` and ``kube-apiserver.log``; `stop` removes it."""
        if self._folder is None:
            raise ControlPlaneError("cannot use the control plane: it was not started (call start)")
        return self._folder

    @property
    def server(self) -> str:
        """The API server's URL, which a restart doesn't change."""
        is_v6 = isinstance(ip_address(self._bind_address), IPv6Address)
        host = f"[{self._bind_address}]" if is_v6 else self._bind_address
        return f"https://{host}:{self._port}"

    @property
    def ca_file(self) -> Path:
        """The self-signed certificate that the API server generated; it is its own CA."""
        return self.folder / "pki" / "apiserver.crt"

    @property
    def kubectl_program(self) -> Path:
        """The path of kubectl."""
        return self._binaries.kubectl

    @property
    def service_account_key(self) -> Path:
        """The private key that signs the tokens of service accounts."""
        return self.folder / "service-accounts.key"

    @property
    def kubeconfig(self) -> Path:
        """The admin's kubeconfig."""
        return self.kubeconfig_for(ADMIN)

    def start(self) -> None:
        """Start both servers and return once the API server is ready.

        It is ready when it reports so and has created its own objects: the namespace ``default``,
        the RBAC roles, and the Service ``kubernetes``.

        Raises:
            ControlPlaneError: It is already running, or a server exited (with the end of its log).
            DeadlineExceededError: It wasn't ready in time; as after an exit, no process is left.
        """
        if self._folder is not None:
            raise ControlPlaneError("cannot start the control plane: it runs already")
        self._folder = Path(tempfile.mkdtemp(prefix="userspace-proxy-"))
        try:
            self._reserve_port()
            self._start_etcd()
            self._write_credentials()
            self.start_apiserver()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill both servers and remove the folder; idempotent."""
        self.stop_apiserver()
        if self._etcd is not None:
            self._etcd.kill()
            self._etcd = None
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None
        if self._folder is not None:
            shutil.rmtree(self._folder)
            self._folder = None

    def stop_apiserver(self) -> None:
        """Kill the API server; etcd keeps the data.

        Idempotent. Clients see resets, then refused connections. It gets SIGKILL, because after
        SIGTERM it would wait a minute for watches.
        """
        if self._apiserver is not None:
            self._apiserver.kill()
            self._apiserver = None

    def start_apiserver(self) -> None:
        """Start the API server with the same data, address and certificate; wait until ready.

        Raises:
            ControlPlaneError: It is already running, or it exited (with the end of its log).
            DeadlineExceededError: It wasn't ready in time; it is stopped again.
        """
        if self._apiserver is not None:
            raise ControlPlaneError("cannot start kube-apiserver: it runs already")
        self._apiserver = Child(
            [self._binaries.kube_apiserver, *self._flags()],
            self.folder / "kube-apiserver.log",
            self._prefix,
        )
        try:
            wait_until_ready(self._apiserver, self._has_certificate)
            for user in self._groups:
                self.write_kubeconfig(self.kubeconfig_for(user), token_of(user))
            wait_until_ready(self._apiserver, self._is_ready)
        except BaseException:
            self.stop_apiserver()
            raise

    def kubectl(
        self,
        *args: str,
        input: str | None = None,  # noqa: A002 - named as in subprocess.run
        check: bool = True,
        user: str = ADMIN,
    ) -> str:
        """Run kubectl in the API server's namespace and return its output.

        Args:
            args: Its arguments; its only kubeconfig is the control plane's.
            input: Its standard input, for ``-f -``.
            check: Whether a failure is an error; if not, standard error is appended to the output.
            user: The user whose token it sends.

        Raises:
            ControlPlaneError: It failed; the error contains its output.
        """
        # kubectl's discovery cache is below HOME. The user's HTTP proxies can't reach this
        # namespace.
        ours = {
            "KUBECONFIG": str(self.kubeconfig_for(user)),
            "HOME": str(self.folder),
            "NO_PROXY": "*",
        }
        command = f"kubectl {' '.join(args)}"
        try:
            done = subprocess.run(
                [*self._prefix, self._binaries.kubectl, *args],
                input=input,
                stdin=subprocess.DEVNULL if input is None else None,
                capture_output=True,
                text=True,
                timeout=KUBECTL_DEADLINE_S,
                env=os.environ | ours,
            )
        except subprocess.TimeoutExpired as error:
            raise ControlPlaneError(
                f"cannot {command}: still busy after {error.timeout} s"
            ) from error
        if not check:
            return done.stdout + done.stderr
        if done.returncode:
            raise ControlPlaneError(f"cannot {command}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *objects: Mapping[str, object], namespace: str = "") -> None:
        """Create or update objects.

        Args:
            namespace: The namespace of objects that don't name one; empty: ``default``.
        """
        where = ("--namespace", namespace) if namespace else ()
        items = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.kubectl("apply", *where, "-f", "-", input=items)

    def kubeconfig_for(self, user: str) -> Path:
        """Return the kubeconfig of a user with a token."""
        # KUBECONFIG is a list of paths, separated by colons.
        return self.folder / f"{user.replace(':', '-')}.kubeconfig"

    def write_kubeconfig(self, path: Path, token: str, server: str | None = None) -> None:
        """Write a self-contained kubeconfig, which includes the certificate.

        Args:
            path: The file; an existing one is replaced.
            token: A token, valid or not.
            server: The URL to dial; None for the API server's own.
        """
        config = render_kubeconfig(server or self.server, self.ca_file.read_bytes(), token)
        path.write_text(config)
        path.chmod(0o600)

    def grant_node_proxier(self) -> None:
        """Grant ``userspace-proxy`` the node agent's rights; return once they are in effect."""
        objects = {item["kind"]: item for item in yaml.safe_load_all(_INSTALL.read_text())}
        binding = {
            **objects["ClusterRoleBinding"],
            "subjects": [{"kind": "User", "name": NODE_PROXIER}],
        }
        self.apply(objects["ClusterRole"], binding)
        question = ("auth", "can-i", "list", "endpointslices.discovery.k8s.io")
        wait_for(
            "the API server to know the new role",
            lambda: self.kubectl(*question, user=NODE_PROXIER, check=False).startswith("yes"),
        )

    def _reserve_port(self) -> None:
        """Choose the port and, outside a namespace, keep it from other programs.

        The reserving socket never listens; kube-apiserver binds the same port (SO_REUSEPORT). No
        other program can therefore get the port before the first start or between two starts.
        """
        if self._prefix:
            self._port = NAMESPACE_PORT
            return
        is_v6 = isinstance(ip_address(self._bind_address), IPv6Address)
        self._reserved = socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET)
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._reserved.bind((self._bind_address, 0))
        self._port = self._reserved.getsockname()[1]

    def _start_etcd(self) -> None:
        """Start etcd on a Unix socket, like Kubernetes' own integration tests.

        Source: test/integration/framework/etcd.go: the advertised address is never dialled, and
            etcd accepts no Unix socket for it.
        """
        self._etcd = Child(
            [
                self._binaries.etcd,
                f"--data-dir={self._etcd_data or self.folder / 'etcd'}",
                f"--listen-client-urls=unix://{self._etcd_socket}",
                "--advertise-client-urls=http://127.0.0.1:0",
                "--listen-peer-urls=http://127.0.0.1:0",
                "--unsafe-no-fsync",
                "--log-level=warn",
            ],
            self.folder / "etcd.log",
            self._prefix,
        )
        wait_until_ready(self._etcd, lambda: accepts(self._etcd_socket))

    @property
    def _etcd_socket(self) -> Path:
        return self.folder / "etcd.sock"

    def _write_credentials(self) -> None:
        (self.folder / "tokens.csv").write_text(render_tokens(self._groups))
        self.service_account_key.write_text(make_service_account_key())

    def _flags(self) -> list[str]:
        key = self.service_account_key
        no_controllers = [
            "--disable-admission-plugins=ServiceAccount",
            # Keeps the API server from adding endpoints to the Service kubernetes.
            "--endpoint-reconciler-type=none",
        ]
        return [
            f"--etcd-servers=unix://{self._etcd_socket}",
            f"--bind-address={self._bind_address}",
            # Otherwise the API server would look for a default route, which a namespace may lack.
            f"--advertise-address={self._bind_address}",
            f"--secure-port={self._port}",
            "--permit-port-sharing",
            f"--cert-dir={self.ca_file.parent}",
            f"--service-cluster-ip-range={self._service_cidr}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            # kubeadm sets this, too, because kube-proxy's own pods are privileged.
            "--allow-privileged=true",
            *([] if self._has_controllers else no_controllers),
            *self._apiserver_flags,
        ]

    def _has_certificate(self) -> bool:
        end = b"-----END CERTIFICATE-----\n"
        return self.ca_file.is_file() and self.ca_file.read_bytes().endswith(end)

    def _is_ready(self) -> bool:
        return all(map(self._serves, ("/readyz", "/api/v1/namespaces/default/services/kubernetes")))

    def _serves(self, path: str) -> bool:
        """Return whether the API server answers a GET with 200."""
        if not self._prefix:
            return serves_https(self._bind_address, self._port, path, self.ca_file, token_of(ADMIN))
        # Use kubectl, because this process's own sockets are in another namespace.
        try:
            self.kubectl("get", "--raw", path, "--request-timeout=5s")
        except ControlPlaneError:
            return False
        return True

"""A real agent in a sandbox: its process, its clients' sockets, its manifests, its kernel's text.

    node-1   python -m userspace_proxy run     ◀── pod, bare-pod, bridge-pod, node-1, laptop
             └─ manifests: a folder of ours         (sockets made in their namespaces)

A socket belongs to the namespace in which it was made, so a small process in each namespace
makes them and hands them over; a test uses them like its own. Every wait has a deadline.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import userspace_proxy
from tests.cluster.waiting import wait_for
from tests.promises.listings import with_sorted_elements
from userspace_proxy.kernel.own_namespace import own_namespace_environment
from userspace_proxy.sandbox import Host, Namespace, Node, Pod, Sandbox, SandboxError

DEADLINE_S = 30.0
# On a machine that is busy with other tests; the agent alone needs less than one second.
READY_S = 60.0
HEALTH, ADMIN = 10256, 10249
CLEANUP = (sys.executable, "-m", "userspace_proxy", "cleanup")
ON_A_NODE = ("local-on-a-node", "local-by-rules")
CLIENTS = ("pod", "bare-pod", "bridge-pod", "node-1", "laptop")

_MAKER = """\
import socket, sys
peer = socket.socket(fileno=int(sys.argv[1]))
while asked := peer.recv(2):
    with socket.socket(*asked) as made:
        socket.send_fds(peer, [b"."], [made.fileno()])
"""
# IP_PKTINFO and the like are not needed by clients: they connect.
_MAX_DATAGRAM = 65535


class Sockets:
    """Makes sockets in a namespace that is not this process's own."""

    def __init__(self, where: Namespace) -> None:
        self.where = where
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-IS", "-c", _MAKER, str(theirs.fileno())]
            where.popen(command, pass_fds=[theirs.fileno()])
        ours.settimeout(DEADLINE_S)
        self._peer = ours
        # Clients may dial from several threads, and the answer to one is no other's.
        self._lock = threading.Lock()

    def tcp(self, ip: str = "") -> socket.socket:
        """Return a TCP socket of that namespace, of the family of an address."""
        return self._make(socket.SOCK_STREAM, family_of(ip))

    def udp(self, ip: str = "") -> socket.socket:
        """Return a UDP socket of that namespace, of the family of an address."""
        return self._make(socket.SOCK_DGRAM, family_of(ip))

    def unix(self) -> socket.socket:
        """Return a Unix socket, which finds the abstract names of that namespace."""
        return self._make(socket.SOCK_STREAM, socket.AF_UNIX)

    def close(self) -> None:
        """Let the process there end."""
        self._peer.close()

    def _make(self, kind: int, family: int = socket.AF_INET) -> socket.socket:
        with self._lock:
            self._peer.send(bytes([family, kind]))
            _, descriptors, _, _ = socket.recv_fds(self._peer, 1, 1)
        made = socket.socket(fileno=descriptors[0])
        made.settimeout(DEADLINE_S)
        return made


class Client:
    """Somebody who dials: a pod, the node, or somebody beyond it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.name = host.name
        self._sockets = Sockets(host)
        self._open: list[socket.socket] = []

    def dial(self, address: tuple[str, int], *, port: int = 0) -> socket.socket:
        """Return a TCP connection; refusals and silence are raised. Closed with the client.

        Args:
            address: What to dial.
            port: The source port; 0 for any.
        """
        made = self._kept(self._dialler(address[0], port))
        made.connect(address)
        return made

    def dial_in_vain(self, address: tuple[str, int], *, port: int) -> None:
        """Send the SYN of a connection that nobody will answer, and give it up."""
        with self._dialler(address[0], port) as made:
            made.setblocking(False)
            assert made.connect_ex(address) == errno.EINPROGRESS

    def udp(self, address: tuple[str, int]) -> socket.socket:
        """Return a connected UDP socket, which keeps its source port. Closed with the client."""
        made = self._kept(self._sockets.udp(address[0]))
        made.connect(address)
        return made

    def get(self, address: tuple[str, int]) -> str:
        """Return what a web server answers to one request by a connection of its own."""
        return http_get(self.tcp(address[0]), address, "/")[1].strip()

    def tcp(self, ip: str = "") -> socket.socket:
        """Return a new TCP socket, of the family of an address; the caller closes it."""
        return self._sockets.tcp(ip)

    def new_udp(self, ip: str = "") -> socket.socket:
        """Return a new UDP socket that isn't connected; the caller closes it."""
        return self._sockets.udp(ip)

    def asks(self, address: tuple[str, int], text: bytes = b"hello") -> str:
        """Return what a UDP server answers to one datagram from a port of its own."""
        with self._sockets.udp(address[0]) as made:
            made.connect(address)
            return ask(made, text).decode()

    def tcp_refusal(self, address: tuple[str, int]) -> str:
        """Return how a TCP dial ends: ``refused``, ``accepted``, or the kernel's own words."""
        with self._sockets.tcp(address[0]) as made:
            try:
                made.connect(address)
            except ConnectionRefusedError:
                return "refused"
            except OSError as exc:
                return str(exc)
            return "accepted"

    def udp_refusal(self, address: tuple[str, int]) -> str:
        """Return how a datagram ends: ``refused``, ``answered``, or the kernel's own words."""
        with self._sockets.udp(address[0]) as made:
            made.connect(address)
            return refusal(made)

    def hang_up(self) -> None:
        """Close what was dialled and is still open."""
        for made in self._open:
            made.close()
        self._open.clear()

    def close(self) -> None:
        """Close everything."""
        self.hang_up()
        self._sockets.close()

    def _dialler(self, ip: str, port: int) -> socket.socket:
        made = self._sockets.tcp(ip)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("", port))
        return made

    def _kept(self, made: socket.socket) -> socket.socket:
        self._open.append(made)
        return made


def family_of(ip: str) -> int:
    """Return the family of an address; IPv4 where there is none."""
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


def ask(sock: socket.socket, text: bytes = b"hello") -> bytes:
    """Send a datagram by a connected socket and return the answer."""
    sock.send(text)
    return sock.recv(_MAX_DATAGRAM)


def refusal(sock: socket.socket) -> str:
    """Return how a datagram of a connected socket ends; see :meth:`Client.udp_refusal`."""
    try:
        ask(sock, b"anybody there?")
    except ConnectionRefusedError:
        return "refused"
    except OSError as exc:
        return str(exc)
    return "answered"


def http_get(sock: socket.socket, address: tuple[str, int], path: str) -> tuple[int, str]:
    """Send one request by a new socket; return status and body, and close the socket."""
    with sock:
        sock.connect(address)
        sock.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        head, _, body = read_all(sock).partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


def read_all(sock: socket.socket) -> bytes:
    """Read until the other side's FIN."""
    chunks = []
    while chunk := sock.recv(1 << 20):
        chunks.append(chunk)
    return b"".join(chunks)


@dataclass(frozen=True, eq=False)
class Service:
    """One Service with one port, and its endpoints."""

    name: str
    ip: str
    port: int = 80
    protocol: str = "TCP"
    endpoints: Sequence[str] = ()
    """Addresses; all serve at ``target``."""
    target: int = 8080
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of its spec."""

    @property
    def address(self) -> tuple[str, int]:
        """What clients dial."""
        return self.ip, self.port

    def objects(self) -> Iterator[dict[str, Any]]:
        """Yield the Service and its slice."""
        port = {"port": self.port, "protocol": self.protocol}
        yield {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": "shop", "name": self.name},
            "spec": {"clusterIP": self.ip, "ports": [port], **self.more},
        }
        label = {"kubernetes.io/service-name": self.name}
        yield {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"namespace": "shop", "name": f"{self.name}-1", "labels": label},
            "addressType": "IPv4",
            "ports": [{"port": self.target, "protocol": self.protocol}],
            "endpoints": [{"addresses": [ip]} for ip in self.endpoints],
        }


CLIENT_IP = {"sessionAffinity": "ClientIP"}


class Manifests:
    """The folder that the agent reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def write(self, *services: Service, name: str = "shop.yaml") -> None:
        """Put these in place of what the file said, in one step as editors do."""
        documents = [json.dumps(o, indent=1) for s in services for o in s.objects()]
        self.write_text("\n---\n".join(documents), name=name)

    def write_text(self, text: str, *, name: str = "shop.yaml") -> None:
        """Put any text in place of what the file said."""
        draft = self.folder / f".{name}.draft"
        draft.write_text(text)
        draft.replace(self.folder / name)


def child_pids(pid: int) -> list[int]:
    """Return the children of a process."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def is_alive(pid: int) -> bool:
    """Return whether a process still runs; one that nobody has waited for doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Agent:
    """``userspace-proxy run`` in the node's namespace, as often as it is started.

    Args:
        node: Where.
        sockets: Of the node.
        folder: For log, manifests and the lock of the tables.
        steering: As the flag says; or one of ``ON_A_NODE``, or ``auto-on-a-node``.
        flags: More of them.
    """

    def __init__(
        self, node: Node, sockets: Sockets, folder: Path, steering: str, *flags: str
    ) -> None:
        self.node = node
        self.manifests = Manifests(folder / "manifests")
        self.log_path = folder / "agent.log"
        self.environment = agent_environment(node, folder)
        if "-" in steering:
            # As on any node: nobody has made its namespace for the agent.
            for name in own_namespace_environment(node.pid):
                del self.environment[name]
        if steering == "local-by-rules":
            self.environment["PYTHONPATH"] = str(folder_without_nftables(folder))
        self.steering = steering.partition("-")[0]
        self.source = f"--manifests={self.manifests.folder}"
        self.flags = flags
        self.process: subprocess.Popen[str] | None = None
        self._sockets = sockets

    @property
    def command(self) -> list[str]:
        """The command line."""
        return [
            *(sys.executable, "-m", "userspace_proxy", "run"),
            self.source,
            f"--steering={self.steering}",
            "--hostname-override=node-1",
            *self.flags,
        ]

    @property
    def pid(self) -> int:
        """The running process."""
        assert self.process is not None
        return self.process.pid

    def start(self, stderr: int | None = None) -> None:
        """Start it; its log is appended to the same file, or goes to another descriptor."""
        assert self.process is None, "one at a time"
        with self.log_path.open("a") as stream:
            self.process = self.node.popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stderr=stream if stderr is None else stderr,
                env=self.environment,
            )

    def start_until_ready(self, stderr: int | None = None) -> None:
        """Start it and wait until its health says that its first plan is in force."""
        self.start(stderr)
        wait_for("a healthy agent", self.is_healthy, deadline_s=READY_S, hint=self.log)

    def is_healthy(self) -> bool:
        """Return whether ``/healthz`` says 200; fails when the process has ended."""
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        try:
            return self.read("/healthz", port=HEALTH)[0] == 200
        except ConnectionRefusedError:
            return False

    def ask_for_the_lock(self) -> None:
        """Ask who has the node's lock, as an agent that finds it taken does."""

        def is_told() -> bool:
            with self.unix_socket() as asker:
                try:
                    asker.connect("\0userspace-proxy")
                except BlockingIOError:
                    # 128 others wait, and the agent's loop has not had its turn.
                    return False
                return True

        wait_for("an answer of the lock", is_told)

    def unix_socket(self) -> socket.socket:
        """Return a Unix socket of the node's namespace."""
        return self._sockets.unix()

    def listener(self, port: int) -> socket.socket:
        """Return another program's listener on a port of the node; the caller closes it."""
        made = self._sockets.tcp()
        made.bind(("0.0.0.0", port))
        made.listen()
        return made

    def read(self, path: str, *, port: int = ADMIN) -> tuple[int, str]:
        """Return status and body of what the agent answers on the node's loopback."""
        return http_get(self._sockets.tcp(), ("127.0.0.1", port), path)

    def status(self) -> dict[str, Any]:
        """Return the state as ``/api/v1/status`` shows it."""
        answer: dict[str, Any] = json.loads(self.read("/api/v1/status")[1])
        return answer

    def frontends(self, service: str) -> dict[str, str]:
        """Return where each frontend of a Service leads; empty when it isn't served."""
        return {
            frontend["address"]: frontend["target"]
            for port in self.status()["ports"]
            if port["service"] == service
            for frontend in port["frontends"]
        }

    def proxy_port(self, service: str) -> int:
        """Return the proxy port of a Service with one frontend."""
        (target,) = self.frontends(service).values()
        return int(re.fullmatch(r"proxy port (\d+)", target)[1])  # type: ignore[index]

    def wait_until_settled(self, *services: Service) -> None:
        """Wait until these Services with these endpoints, and no others, are in force."""
        wanted = sorted(
            (service.name, sorted(f"{ip}:{service.target}" for ip in service.endpoints))
            for service in services
        )

        def is_in_force() -> bool:
            status = self.status()
            shown = sorted(
                (port["service"], sorted(e["address"] for e in port["endpoints"]))
                for port in status["ports"]
            )
            # The plan is shown a moment before the rules are in the kernel.
            return shown == wanted and not status["sync"]["waiting_since"]

        wait_for(f"{wanted} to be in force", is_in_force, hint=self.log)

    def log(self) -> str:
        """Return all that it has said."""
        return self.log_path.read_text()

    def kill(self) -> None:
        """Kill it with SIGKILL, and see its workers go; idempotent."""
        if self.process is not None:
            children = child_pids(self.process.pid)
            self.process.kill()
            self.process.wait()
            self.process = None
            wait_for("the end of its workers", lambda: not any(map(is_alive, children)))

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end and return its exit status."""
        assert self.process is not None
        status = self.process.wait(READY_S)
        self.process = None
        return status

    def stop(self) -> int:
        """Stop it in good order and return its exit status."""
        self.send(signal.SIGTERM)
        return self.wait()

    def run(
        self,
        *flags: str,
        command: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run it in the node's namespace until it ends by itself, with these flags besides."""
        return self.node.run(
            [*(command or self.command), *flags],
            check=False,
            timeout=READY_S,
            env={**self.environment, **(env or {})},
        )


def agent_environment(node: Node, folder: Path) -> dict[str, str]:
    """Return the environment of an agent that may do with the node's namespace as it likes."""
    return {
        **os.environ,
        **own_namespace_environment(node.pid),
        "XTABLES_LOCKFILE": str(folder / "xtables.lock"),
    }


# What a kernel without nf_tables answers to its messages; those of conntrack are answered.
_WITHOUT_NFTABLES = """
import errno
from userspace_proxy.kernel.netlink import Requests

def refuse(method):
    def ask(self, request, *more):
        if int.from_bytes(request[4:6], "little") >> 8 == 10:
            raise OSError(errno.EINVAL, "Invalid argument")
        return method(self, request, *more)
    return ask

Requests.ask, Requests.list_all = refuse(Requests.ask), refuse(Requests.list_all)
"""


def folder_without_nftables(folder: Path) -> Path:
    """Make a folder for PYTHONPATH with which the kernel seems to have no nf_tables."""
    made = folder / "without-nftables"
    made.mkdir(exist_ok=True)
    (made / "sitecustomize.py").write_text(_WITHOUT_NFTABLES)
    return made


class House:
    """A sandbox with clients everywhere, and an agent on its node.

    Args:
        folder: An empty one.
        steering: As the flag says.
        flags: More flags of the agent.
        clients: Which of ``CLIENTS`` there are.
        agent: What runs on the node.
    """

    def __init__(
        self,
        folder: Path,
        steering: str,
        *flags: str,
        clients: Iterable[str] = ("pod", "node-1", "laptop"),
        agent: type[Agent] = Agent,
    ) -> None:
        self.sandbox = Sandbox()
        self.clients: dict[str, Client] = {}
        try:
            self.sandbox.open()
        except SandboxError as exc:
            pytest.skip(str(exc))
        try:
            self.node = self.sandbox.node
            for name in clients:
                self.clients[name] = Client(self._host(name))
            self._sockets = Sockets(self.node)
            self.agent = agent(self.node, self._sockets, folder, steering, *flags)
        except BaseException:
            self.close()
            raise

    def __getitem__(self, name: str) -> Client:
        return self.clients[name]

    def add_pods(self, *names: str, **ports: int | Sequence[int]) -> list[str]:
        """Start pods with one backend each; return their addresses."""
        for name in names:
            self.sandbox.add_pod(name).serve(None, **ports)
        return [self.ip(name) for name in names]

    def pod(self, name: str) -> Pod:
        """Return a pod by its name."""
        return self.sandbox.pods[name]

    def ip(self, name: str) -> str:
        """Return a pod's address."""
        return str(self.sandbox.pods[name].ip)

    def serve(self, *services: Service) -> None:
        """Write these Services and start the agent."""
        self.agent.manifests.write(*services)
        self.agent.start_until_ready()

    def edit(self, *services: Service) -> None:
        """Write these Services while the agent runs."""
        self.agent.manifests.write(*services)

    def rules(self) -> str:
        """Return all rules of the node: without counters and empty built-in tables."""
        save = "iptables-legacy-save; ip6tables-legacy-save"
        legacy = without_noise(self.node.run(["sh", "-ec", save], env=self._admin()).stdout)
        return legacy + with_sorted_elements(self.shell("nft -s list ruleset"))

    def kernel(self) -> str:
        """Return rules, routes and listening sockets of the node as text."""
        show = "ip route show table all; ip -6 route show table all; ip rule; ss -lntuH"
        said = self.node.run(["sh", "-ec", show], env=self._admin()).stdout
        return self.rules() + "".join(sorted(without_states(said).splitlines(keepends=True)))

    def shell(self, script: str) -> str:
        """Run a script on the node; return what it prints."""
        return self.node.run(["sh", "-ec", script], env=self._admin()).stdout

    def hang_up(self) -> None:
        """Close what tests left open."""
        for client in self.clients.values():
            client.hang_up()

    def close(self) -> None:
        """End everything; idempotent."""
        for client in self.clients.values():
            client.close()
        if hasattr(self, "_sockets"):
            self._sockets.close()
        self.sandbox.close()

    def _host(self, name: str) -> Host:
        match name:
            case "node-1":
                return self.node
            case "laptop":
                return self.sandbox.add_outside(name)
            case "bare-pod":
                return self.sandbox.add_pod(name, "unnumbered")
            case "bridge-pod":
                return self.sandbox.add_pod(name, "bridge")
        return self.sandbox.add_pod(name)

    def _admin(self) -> dict[str, str]:
        # Debian keeps these tools in sbin, which an unprivileged user's PATH may lack.
        mine = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        return {**self.agent.environment, **mine}

    def __enter__(self) -> House:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def without_noise(text: str) -> str:
    """Return saved tables without comments, counters and built-in tables that hold nothing."""
    kept = []
    for table in re.findall(r"^\*.*?^COMMIT$", text, re.MULTILINE | re.DOTALL):
        table = re.sub(r" \[\d+:\d+\]$", "", table, flags=re.MULTILINE)
        if re.search(r"^-A|^:\S+ (-|DROP)", table, re.MULTILINE):
            kept.append(f"{table}\n")
    return "".join(kept)


def without_states(text: str) -> str:
    """Return routes without what changes by itself: whether a link is up, when they end."""
    return re.sub(r" (linkdown|expires \d+sec)", "", text)


@contextlib.contextmanager
def descriptors_of(pids: Iterable[int]) -> Iterator[list[int]]:
    """Hold descriptors of processes, through which their end is seen whoever their parent is."""
    opened = []
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                opened.append(os.pidfd_open(pid))
        yield opened
    finally:
        for descriptor in opened:
            os.close(descriptor)


def with_endpoints(service: Service, ips: Iterable[str]) -> Service:
    """Return the Service with these endpoints."""
    return replace(service, endpoints=tuple(ips))


def listen(pod: Pod, port: int) -> socket.socket:
    """Return a listener of ours in a pod."""
    maker = Sockets(pod)
    server = maker.tcp()
    maker.close()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((str(pod.ip), port))
    server.listen()
    return server


def has_user(number: int) -> bool:
    """Return whether this process may become a user: in a user namespace few have a number."""
    ranges = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
    is_mapped = any(int(first) <= number < int(first) + int(count) for first, _, count in ranges)
    return os.geteuid() == 0 and is_mapped


NOBODY = 65534
as_another_user = pytest.mark.skipif(
    not has_user(NOBODY),
    reason="only root, outside of a user namespace, can become a user without any rights",
)


@contextlib.contextmanager
def readable_runtime() -> Iterator[tuple[list[str], str, dict[str, str]]]:
    """Yield how to run this interpreter and package as a user without any rights.

    Their files may be anywhere, below ``/root`` too, where such a user can't look: in a mount
    namespace of the command's own they are shown in a folder that everybody may read.

    Yields:
        The prefix of a command, the interpreter, and what its environment needs.
    """
    packages = [path for path in sys.path if path.endswith("site-packages")]
    shown = [sys.base_prefix, str(Path(userspace_proxy.__file__).parents[1]), *packages]
    with tempfile.TemporaryDirectory(prefix="runtime-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        places = [f"{folder}/{number}" for number in range(len(shown))]
        for place in places:
            Path(place).mkdir()
        mounts = "; ".join(
            f"mount --bind {shlex.quote(path)} {place}"
            for path, place in zip(shown, places, strict=True)
        )
        drop = f"setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups"
        prefix = ["unshare", "--mount", "sh", "-ec", f'{mounts}; exec {drop} -- "$@"', "sh"]
        minor = f"python{sys.version_info.major}.{sys.version_info.minor}"
        environment = {
            "PYTHONPATH": os.pathsep.join(places[1:]),
            # An interpreter with a library of its own would find the system's, or none.
            "LD_LIBRARY_PATH": f"{places[0]}/lib",
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": "/",
        }
        yield prefix, f"{places[0]}/bin/{minor}", environment

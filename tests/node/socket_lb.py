"""A node whose Services use the kernel path, by rules alone or with ``connect()`` hooks.

    cgroup v2
    └─ userspace-proxy-PID-test     hooks are attached here
       └─ pods                      this process and all that it starts: the agent, pods, clients

Rule 1: a socket belongs to the cgroup of the process that creates it, so hooks translate the dials
of every socket that a test gets from a client.
Rule 2: the agent sees the test's own bpffs at the usual path.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.waiting import wait_for
from tests.node.agents import Agent
from tests.node.bpf_hooks import bpf_rights, in_cgroup, mounted, own_cgroup
from tests.node.clients import DEADLINE_S, Client
from tests.node.endpoints import CLUSTER_IPS, PORT, TARGET, VERSIONS
from tests.node.load import Load, Outcome
from tests.node.processes import readable_folder
from tests.node.testbed import Testbed
from tests.promises.specs import PATH, Object, Port, Spec
from userspace_proxy.kernel.offers import FOR_KERNEL_PATH
from userspace_proxy_testing.sandbox import Host
from userspace_proxy_testing.sandbox.address_plan import LOAD_BALANCER_CIDR, POD_CIDR

Address = tuple[str, int]

RULES, HOOKS = "off", "required"
"""Values of ``--socket-lb``: rules alone, or also hooks."""
MODES = (
    pytest.param(RULES, id="rules"),
    pytest.param(HOOKS, id="hooks", marks=pytest.mark.needs("connect hooks")),
)
MARKS = [pytest.mark.netns, pytest.mark.needs(*FOR_KERNEL_PATH)]
KINDS = ("cluster IP", "node port", "load balancer", "external IP")
# Dropped packets get no answer; others are answered within a millisecond.
SILENCE_S = 1.0
REFUSED = os.strerror(errno.ECONNREFUSED)

FLAGS = (
    "--workers=1",
    f"--cluster-cidr={POD_CIDR}",
    f"--allow-external-ips={LOAD_BALANCER_CIDR}",
)

# The rate is low, because tests run in parallel; a gap loses connections even at a low rate.
_LOAD_RATE, _LOAD_TIMEOUT_S = 30.0, 30.0
_BPFFS = "/sys/fs/bpf"
_SEEING = f'mount --bind "$1" {_BPFFS}; shift; exec "$@"'
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Backend:
    """A pod, or the node, that answers HTTP requests with its name."""

    host: Host

    @property
    def name(self) -> str:
        return self.host.name

    def at(self, version: int) -> Address:
        """Return the address and port at which it answers."""
        return str(self.host.ip if version == 4 else self.host.ip6), TARGET


@dataclass(frozen=True, eq=False)
class Web:
    """A dual-stack Service with a frontend of each kind.

    Args:
        number: Selects its addresses and its node port.
    """

    name: str
    number: int
    backends: Sequence[Backend] = ()
    path: str = "kernel"

    @property
    def node_port(self) -> int:
        return 30000 + self.number

    def cluster_ip(self, version: int) -> Address:
        return CLUSTER_IPS[version].format(self.number), PORT

    def load_balancer(self, version: int) -> Address:
        return ("203.0.113.{}" if version == 4 else "fd00:203:0:113::{}").format(self.number), PORT

    def external_ip(self, version: int) -> Address:
        ip = ("203.0.113.{}" if version == 4 else "fd00:203:0:113::{}").format(self.number + 100)
        return ip, PORT

    def objects(self) -> Iterator[Object]:
        ips = [self.external_ip(version)[0] for version in VERSIONS]
        spec = Spec(
            self.name,
            [self.cluster_ip(version)[0] for version in VERSIONS],
            [
                Port(PORT, "TCP", TARGET, "http", self.node_port),
                Port(PORT, "UDP", TARGET, "dns", self.node_port),
            ],
            more={"type": "LoadBalancer", "externalIPs": ips},
            annotations={PATH: self.path},
            ingress=[{"ip": self.load_balancer(version)[0]} for version in VERSIONS],
        )
        ends = (backend.at(version)[0] for backend in self.backends for version in VERSIONS)
        return spec.at(*ends).objects()


class PinnedAgent(Agent):
    """An agent that sees the test's pins instead of the machine's."""

    pins: Path | None = None

    @property
    def command(self) -> list[str]:
        return self.seeing_pins(super().command)

    def seeing_pins(self, command: Sequence[str]) -> list[str]:
        """Return a command that runs another command with the test's pins mounted."""
        if self.pins is None:
            return list(command)
        return ["unshare", "--mount", "sh", "-c", _SEEING, "sh", str(self.pins), *command]


class SocketNode(Testbed):
    """A testbed for one mode of ``--socket-lb``.

    Args:
        mode: ``RULES`` or ``HOOKS``.
        pins: A bpffs mount; None without hooks.
        cgroup: The cgroup of the hooks; None without hooks.
        base: The agent's flags in all modes.
    """

    agent: PinnedAgent

    def __init__(
        self,
        folder: Path,
        mode: str,
        *flags: str,
        pins: Path | None,
        cgroup: Path | None,
        clients: Iterable[str],
        base: Iterable[str] = FLAGS,
    ) -> None:
        self.mode = mode
        self.cgroup = cgroup
        self._folder = folder
        flags = (*socket_flags(mode, cgroup), *base, *flags)
        super().__init__(folder, "nftables", *flags, clients=clients, agent=PinnedAgent)
        self.agent.pins = pins

    def add_backends(self, *names: str, **ports: int) -> list[Backend]:
        """Start pods that answer with their names; for ``ports``, see ``Namespace.serve``."""
        return [self.backend(self.sandbox.add_pod(name), **ports) for name in names]

    @staticmethod
    def backend(host: Host, **ports: int) -> Backend:
        """Start a backend on a host."""
        host.serve(None, tcp=TARGET, udp=TARGET, **ports)
        return Backend(host)

    def add_clients(self, name: str, count: int) -> Iterator[Client]:
        """Start pods that dial, each at its first use."""
        for number in range(count):
            client = Client(self.sandbox.add_pod(f"{name}-{number}"))
            self.clients[client.name] = client
            yield client

    def add_container(self, name: str, cgroup: Path | None) -> Client:
        """Start a pod that dials, in a cgroup of its own; None for this process's cgroup."""
        with in_cgroup(cgroup) if cgroup else contextlib.nullcontext():
            client = Client(self.sandbox.add_pod(name))
        self.clients[name] = client
        return client

    def add_laptop(self) -> Client:
        """Start a client outside, which is another machine, without hooks."""
        with in_cgroup(self.cgroup.parent) if self.cgroup else contextlib.nullcontext():
            client = Client(self.sandbox.add_outside("laptop"))
        self.clients[client.name] = client
        return client

    def start(self, *webs: Web) -> None:
        """Write these Services, and start the agent."""
        self.write(*webs)
        self.agent.start_until_ready()

    def write(self, *webs: Web) -> None:
        self.agent.manifests.write_objects(o for web in webs for o in web.objects())

    def change(self, *webs: Web) -> None:
        """Replace all Services by others, and wait until these are applied."""
        before = self.agent.status()["revision"]
        self.write(*webs)

        def is_in_force() -> bool:
            status = self.agent.status()
            return status["revision"] > before and not status["sync"]["waiting_since"]

        wait_for("the change to be in force", is_in_force, hint=self.agent.log)

    def wait_for_path(self, path: str) -> None:
        """Wait until all Service ports use a path."""

        def is_in_force() -> bool:
            return {port["path"] for port in self.agent.status()["ports"]} == {path}

        wait_for(f"the path {path}", is_in_force, hint=self.agent.log)

    def replace_agent(self, *flags: str) -> None:
        """Start a new process that takes over, and wait until the previous one has exited."""
        old, self.agent.process = self.agent.process, None
        self.agent.flags = (*flags, "--take-over", "--drain-timeout=30s")
        self.agent.start_until_ready()
        assert old is not None
        assert old.wait(DEADLINE_S) == 0

    @contextlib.contextmanager
    def load(self, web: Web) -> Iterator[list[Outcome]]:
        """Dial from a pod and the node during the block; then assert that each dial succeeded."""
        loads = [
            Load(
                self[name].host,
                self._folder / f"{name}-{version}.log",
                web.cluster_ip(version),
                _LOAD_RATE,
                timeout_s=_LOAD_TIMEOUT_S,
            )
            for name in ("pod", "node-1")
            for version in VERSIONS
        ]
        outcomes: list[Outcome] = []
        try:
            yield outcomes
        finally:
            outcomes += [load.stop() for load in loads]
        for outcome in outcomes:
            assert not outcome.failed, f"{outcome.failed}\n{self.agent.log()}"
            assert outcome.made

    def at(self, kind: str, web: Web, version: int) -> Address:
        """Return a Service's frontend of one kind; see ``KINDS``."""
        match kind:
            case "node port":
                return str(self.node.ip if version == 4 else self.node.ip6), web.node_port
            case "load balancer":
                return web.load_balancer(version)
            case "external IP":
                return web.external_ip(version)
        return web.cluster_ip(version)

    @property
    def way(self) -> str:
        """The translation of the node's own dials, but not of those that rules always translate."""
        return "hooks" if self.mode == HOOKS else "rules"


def socket_flags(mode: str, cgroup: Path | None) -> list[str]:
    """Return the agent's flags for a mode."""
    return [f"--socket-lb={mode}", *([f"--socket-lb-cgroup={cgroup}"] if cgroup else [])]


@contextlib.contextmanager
def socket_node(
    folder: Path,
    mode: str,
    *flags: str,
    clients: Iterable[str] = ("pod", "node-1"),
    base: Iterable[str] = FLAGS,
) -> Iterator[SocketNode]:
    """Create a node for a mode, with its own cgroup and bpffs if hooks need them."""
    with contextlib.ExitStack() as stack:
        pins = cgroup = None
        if mode == HOOKS:
            with bpf_rights():
                # The agent acquires the required rights by itself.
                pass
            pins = stack.enter_context(mounted(folder / "pins", "bpf"))
            # Workers read their cgroup's limits as a user who can't enter pytest's folders.
            readable = stack.enter_context(readable_folder())
            cgroup = stack.enter_context(own_cgroup(readable / "cgroup"))
            stack.enter_context(in_cgroup(cgroup / "pods"))
        yield stack.enter_context(
            SocketNode(folder, mode, *flags, pins=pins, cgroup=cgroup, clients=clients, base=base)
        )


class Dial:
    """A TCP connection of an HTTP client."""

    def __init__(self, client: Client, address: Address, sock: socket.socket | None = None) -> None:
        self.client = client
        self.address = address
        self.sock = client.tcp(address[0]) if sock is None else sock

    def connect(self) -> Dial:
        self.sock.connect(self.address)
        return self

    def ask(self) -> str:
        """Send a request, and return the name of the endpoint that answers."""
        self.sock.sendall(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
        return answer(self.sock)[0]

    @property
    def peer(self) -> Address:
        """The socket's peer, as the program sees it."""
        host, port, *_ = self.sock.getpeername()
        return host, port

    @property
    def way(self) -> str:
        """The dial's translation: ``hooks`` if the kernel's peer differs from the program's."""
        seen = kernel_peer(self.client, self.sock)
        return "rules" if seen == self.peer else "hooks"

    def __enter__(self) -> Dial:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.sock.close()


def answer(sock: socket.socket) -> tuple[str, str]:
    """Read one response; return its contents, the endpoint's name and the client's address."""
    text = b""
    while b"\r\n\r\n" not in text:
        part = sock.recv(4096)
        assert part, "the connection ended"
        text += part
    head, _, body = text.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    while len(body) < int(headers["Content-Length"]):
        body += sock.recv(4096)
    return body.decode().strip(), headers["X-Client-Address"]


def kernel_peer(client: Client, sock: socket.socket) -> Address:
    """Return the peer to which the kernel sends a socket's packets."""
    kind, port = "-t" if sock.type == socket.SOCK_STREAM else "-u", sock.getsockname()[1]
    command = ["ss", "-Hne", kind, "state", "established", f"( sport = :{port} )"]
    # Sockets with other peers may have the same source port.
    own = f"ino:{os.fstat(sock.fileno()).st_ino}"
    listed = map(str.split, client.host.run(command).stdout.splitlines())
    (peer,) = (fields[3] for fields in listed if own in fields)
    host, _, number = peer.rpartition(":")
    return host.strip("[]"), int(number)


def outcome(client: Client, address: Address) -> str:
    """Return the name of the endpoint that answers, ``silence``, or the kernel's error text."""
    with Dial(client, address) as dial:
        dial.sock.settimeout(SILENCE_S)
        try:
            dial.connect()
        except TimeoutError:
            return "silence"
        except OSError as exc:
            return str(exc.strerror)
        dial.sock.settimeout(120)
        return dial.ask()


def met(client: Client, address: Address, times: int = 40) -> set[str]:
    """Return the distinct outcomes of repeated dials."""
    return {outcome(client, address) for _ in range(times)}


def disconnect(sock: socket.socket) -> None:
    """Call connect() with AF_UNSPEC, after which the socket can dial again."""
    nowhere = struct.pack("=H14x", socket.AF_UNSPEC)
    if _libc.connect(sock.fileno(), nowhere, len(nowhere)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def mapped(address: Address) -> Address:
    """Return an IPv4 address as an IPv4-mapped IPv6 address."""
    return f"::ffff:{address[0]}", address[1]

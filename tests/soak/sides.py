"""The two proxies, each with its node, its client and its resources."""

from __future__ import annotations

import abc
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.processes import memory_bytes
from tests.cluster.waiting import wait_for
from tests.node.agents import Agent, agent_environment
from tests.node.clients import Client, Sockets, http_get
from tests.node.processes import child_pids, is_alive
from tests.node.testbed import kernel_of, run_script
from tests.reliability.footprint import footprint_of, processes
from userspace_proxy_testing.sandbox import SandboxNode

from .holdings import Holdings
from .requests import Kill, Request, read_requests
from .shop import ADDRESSES, WEB

CLIENT = Path(__file__).with_name("client.py")
READY_S = 60.0
END_S = 60.0
HEALTH = 10256
CONNTRACK = "net/netfilter/nf_conntrack_"
# Otherwise, conntrack entries would remain for minutes after the load has ended.
CONNTRACK_S = {
    **dict.fromkeys(("tcp_timeout_time_wait", "tcp_timeout_close", "udp_timeout"), 3),
    **dict.fromkeys(("udp_timeout_stream", "tcp_timeout_fin_wait", "tcp_timeout_close_wait"), 3),
}


class Side(abc.ABC):
    """One proxy and its node.

    Args:
        folder: An empty folder.
    """

    title: str

    def __init__(self, node: SandboxNode, folder: Path) -> None:
        self.node = node
        self.folder = folder
        folder.mkdir()
        self.client = node.add_pod(f"client-{node.name}")
        self.kills: list[Kill] = []
        """The killings of processes that relayed connections."""
        self._load: subprocess.Popen[str] | None = None
        self._sockets = Sockets(node)
        self._dialler = Client(self.client)

    @abc.abstractmethod
    def start(self) -> None:
        """Start the proxy, and wait until it is healthy."""

    def wait_until_served(self) -> None:
        """Wait until clients are answered: kube-proxy is healthy before its rules are applied."""

        def is_served() -> bool:
            with contextlib.suppress(OSError):
                return bool(self._dialler.get(WEB.address))
            return False

        wait_for("an answer", is_served, deadline_s=READY_S)

    @abc.abstractmethod
    def restart(self) -> None:
        """Restart the proxy as an upgrade does."""

    @abc.abstractmethod
    def crash(self) -> None:
        """Kill the proxy's first process, and start the proxy again."""

    @property
    @abc.abstractmethod
    def pid(self) -> int:
        """The PID of the proxy's first process."""

    @abc.abstractmethod
    def connections(self) -> int:
        """Return the number of the proxy's open connections."""

    def is_healthy(self) -> bool:
        """Return whether ``/healthz`` returns 200."""
        with contextlib.suppress(OSError):
            return http_get(self._sockets.tcp(), ("127.0.0.1", HEALTH), "/healthz")[0] == 200
        return False

    def start_load(self, rate: float) -> None:
        with (self.folder / "requests").open("a") as stream:
            self._load = self.client.popen(
                [sys.executable, "-IS", str(CLIENT), json.dumps(ADDRESSES), str(rate)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
            )

    def stop_load(self) -> list[Request]:
        """Stop the client, wait for its open requests, and return all outcomes."""
        assert self._load is not None
        self._load.send_signal(signal.SIGTERM)
        status = self._load.wait(END_S)
        self._load = None
        assert status == 0, f"the client of {self.title} failed"
        path = self.folder / "requests"
        requests = list(read_requests(path.read_text()))
        path.unlink()
        return requests

    def kernel(self) -> str:
        return kernel_of(self._shell)

    def conntrack(self) -> int:
        """Return the number of conntrack entries."""
        return int(self._shell("cat /proc/sys/net/netfilter/nf_conntrack_count"))

    def memory_bytes(self) -> int:
        """Return the proportional set size of all the proxy's processes."""
        return memory_bytes(processes(self.pid))

    def shorten_conntrack(self) -> None:
        """Make conntrack entries of closed connections expire within seconds."""
        self.node.configure(
            sysctls=[f"{CONNTRACK}{name}={seconds}" for name, seconds in CONNTRACK_S.items()]
        )

    def holdings(self) -> Holdings:
        # This count comes first, because the query for connections opens a connection, too.
        tracked = self.conntrack()
        return Holdings(footprint_of(self.pid, self.connections(), self.kernel()), tracked)

    def _shell(self, script: str) -> str:
        return run_script(self.node, script, os.environ)

    def close(self) -> None:
        """Stop the programs outside the sandbox."""
        self._dialler.close()
        self._sockets.close()


class UserspaceProxy(Side):
    """The side of this proxy."""

    title = "userspace-proxy"

    def __init__(
        self, node: SandboxNode, folder: Path, kubeconfig: Path, flags: Sequence[str]
    ) -> None:
        super().__init__(node, folder)
        self.agent = Agent(node, self._sockets, folder, "nftables", *flags)
        self.agent.source = f"--kubeconfig={kubeconfig}"

    def start(self) -> None:
        self.agent.start_until_ready()

    def restart(self) -> None:
        """Start the next process, which takes over; the previous process drains and exits."""
        old = self.agent.process
        assert old is not None
        self.agent.process = None
        self.agent.start_until_ready()
        status = old.wait(READY_S)
        assert status == 0, f"a relieved process ended with {status}\n{self.agent.log()}"

    def crash(self) -> None:
        """Kill the control process; its workers serve until the next process takes over."""
        workers = child_pids(self.pid)
        self.agent.kill_control()
        self.agent.start_until_ready()
        wait_for("the end of the last workers", lambda: not any(map(is_alive, workers)))

    def kill_worker(self) -> None:
        """Kill a worker, and wait for its replacement."""
        worker, *_ = child_pids(self.agent.pid)
        end = os.pidfd_open(worker)
        began = time.time()
        os.kill(worker, signal.SIGKILL)
        # On a busy machine, the worker may accept connections for a while after the signal.
        select.select([end], [], [])
        self.kills.append(Kill(began, time.time()))
        os.close(end)
        wait_for("a new worker", lambda: worker not in child_pids(self.agent.pid))
        wait_for("a healthy agent", self.agent.is_healthy, deadline_s=READY_S)

    @property
    def pid(self) -> int:
        return self.agent.pid

    def connections(self) -> int:
        workers = self.agent.status()["workers"]
        return sum(worker["connections"] + worker["flows"] for worker in workers)


class KubeProxy(Side):
    """kube-proxy in nftables mode."""

    title = "kube-proxy"

    def __init__(self, node: SandboxNode, folder: Path, command: Sequence[str]) -> None:
        super().__init__(node, folder)
        self._command = command
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        with (self.folder / "kube-proxy.log").open("a") as stream:
            self._process = self.node.popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=agent_environment(self.node, self.folder),
            )
        wait_for("a healthy kube-proxy", self.is_healthy, deadline_s=READY_S, hint=self._log)

    def restart(self) -> None:
        """Restart the process; its rules stay in the kernel."""
        self._end(signal.SIGTERM)
        self.start()

    def crash(self) -> None:
        self._end(signal.SIGKILL)
        self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def connections(self) -> int:
        """Return 0, because the kernel carries the connections."""
        return 0

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(READY_S)

    def _log(self) -> str:
        return (self.folder / "kube-proxy.log").read_text()[-2000:]

"""Other proxies as ways: HAProxy, nginx, and a Go proxy."""

from __future__ import annotations

from collections.abc import Iterator

from .newer_haproxy import find_newer_haproxy
from .sites import PORTS
from .tools import NGINX_STREAM, find_nginx, find_program
from .way import TCP_ONLY, Way, matching

FIRST_PROXY_PORT = 17001
MAX_CONNECTIONS = 9000
"""More than any load has; as HAProxy counts them."""


class Peer(Way):
    """Another proxy, behind one REDIRECT rule for each port."""

    preserves_client_address = False

    def rules(self) -> Iterator[list[str]]:
        """Part of Way."""
        for name, number in self.proxy_ports():
            yield [*matching(PORTS[name]), "-j", "REDIRECT", "--to-ports", str(number)]

    def proxy_ports(self) -> Iterator[tuple[str, int]]:
        """Yield each port's name and where the proxy listens for it."""
        for number, name in enumerate(PORTS, FIRST_PROXY_PORT):
            if name in self.serves:
                yield name, number


class GoProxy(Peer):
    """Our own Go proxy in the style of kube-proxy's userspace mode."""

    key, label = "go", "Go proxy, userspace style"
    descriptors_each = 6

    def command(self) -> list[str]:
        """Part of Way."""
        flags = [
            f"--{PORTS[name].protocol.lower()}={number}="
            + ",".join(self.site.endpoints(PORTS[name]))
            for name, number in self.proxy_ports()
        ]
        return [str(self.tools.goproxy), *flags]

    def environment(self) -> dict[str, str]:
        """Part of Way."""
        return {"GOMAXPROCS": "1"}


class HAProxy(Peer):
    """Debian's HAProxy with one thread, in TCP mode, else as it comes."""

    key, label = "haproxy", "HAProxy, one thread"
    serves = TCP_ONLY
    descriptors_each = 2
    source = ""
    """The address from which it dials, as its configuration has it; empty: its own choice."""

    @classmethod
    def find_programs(cls) -> None:
        """Part of Way."""
        find_program("haproxy")

    def command(self) -> list[str]:
        """Part of Way."""
        config = self.folder / "haproxy.cfg"
        config.write_text(self._config())
        return [*self.program(), "-db", "-f", str(config)]

    def program(self) -> list[str]:
        """Return the words that run it, without its flags."""
        return [find_program("haproxy")]

    def _config(self) -> str:
        lines = [
            "global",
            "  nbthread 1",
            f"  maxconn {MAX_CONNECTIONS}",
            "defaults",
            "  mode tcp",
            "  balance roundrobin",
            "  timeout connect 5s",
            "  timeout client 5m",
            "  timeout server 5m",
            *([f"  source {self.source}"] if self.source else []),
        ]
        for name, number in self.proxy_ports():
            lines += [f"listen {name}", f"  bind 0.0.0.0:{number}"]
            for index, endpoint in enumerate(self.site.endpoints(PORTS[name])):
                lines.append(f"  server pod{index} {endpoint}")
        return "\n".join(lines) + "\n"


class HAProxyAsClient(HAProxy):
    """The same, with endpoints that see the client's own address, by transparent sockets."""

    key, label = "haproxy-client", "HAProxy, one thread, the client's address"
    source = "0.0.0.0 usesrc clientip"
    preserves_client_address = True

    def open(self) -> None:
        """Part of Way. Replies to clients' addresses have to be delivered to this node.

        Source: Documentation/networking/tproxy.rst of the kernel has these commands.
        """
        super().open()
        for words in (
            "-N DIVERT",
            "-A PREROUTING -p tcp -m socket --transparent -j DIVERT",
            "-A DIVERT -j MARK --set-mark 1",
            "-A DIVERT -j ACCEPT",
        ):
            self.iptables("-t", "mangle", *words.split())
        self.site.node.configure(
            ["rule add fwmark 1 lookup 100", "route add local 0.0.0.0/0 dev lo table 100"]
        )


class HAProxyOfNewerDebian(HAProxy):
    """The same configuration as ``haproxy``, by a newer HAProxy."""

    key, label = "haproxy-newer", "HAProxy of a newer Debian, one thread"
    is_optional = True

    @classmethod
    def find_programs(cls) -> None:
        """Part of Way."""
        find_newer_haproxy()

    def program(self) -> list[str]:
        """Part of HAProxy."""
        return find_newer_haproxy().command


class Nginx(Peer):
    """Debian's nginx with its stream module and one worker, else as it comes."""

    key, label = "nginx", "nginx stream, one worker"
    descriptors_each = 2

    @classmethod
    def find_programs(cls) -> None:
        """Part of Way."""
        find_nginx()

    def command(self) -> list[str]:
        """Part of Way."""
        config = self.folder / "nginx.conf"
        config.write_text(self._config())
        return [find_nginx(), "-p", str(self.folder), "-e", "stderr", "-c", str(config)]

    def _config(self) -> str:
        # In a user namespace there is no other user for the worker. It counts both sides.
        lines = [
            f"load_module {NGINX_STREAM};",
            "daemon off;",
            "user root;",
            "worker_processes 1;",
            "pid nginx.pid;",
            f"events {{ worker_connections {2 * MAX_CONNECTIONS}; }}",
            "stream {",
        ]
        for name, number in self.proxy_ports():
            udp = " udp" * (PORTS[name].protocol == "UDP")
            servers = [f"    server {endpoint};" for endpoint in self.site.endpoints(PORTS[name])]
            lines += [f"  upstream {name} {{", *servers, "  }"]
            lines += [f"  server {{ listen 0.0.0.0:{number}{udp}; proxy_pass {name}; }}"]
        return "\n".join([*lines, "}"]) + "\n"

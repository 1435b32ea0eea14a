"""Other proxies as ways: HAProxy, nginx, and a Go proxy."""

from __future__ import annotations

from collections.abc import Iterator

from .newer_haproxy import find_newer_haproxy
from .sites import PORTS
from .tools import NGINX_STREAM, find_nginx, find_program
from .way import TCP_ONLY, Way, matching

FIRST_PROXY_PORT = 17001
MAX_CONNECTIONS = 9000
"""A number of connections, as HAProxy counts them, that exceeds each load's."""


class Peer(Way):
    """Another proxy, to which one REDIRECT rule for each port leads."""

    preserves_client_address = False

    def rules(self) -> Iterator[list[str]]:
        for name, number in self.proxy_ports():
            yield [*matching(PORTS[name]), "-j", "REDIRECT", "--to-ports", str(number)]

    def proxy_ports(self) -> Iterator[tuple[str, int]]:
        """Yield each port's name, and the port on which the proxy listens for it."""
        for number, name in enumerate(PORTS, FIRST_PROXY_PORT):
            if name in self.serves:
                yield name, number


class GoProxy(Peer):
    """This repository's Go proxy in the style of kube-proxy's userspace mode."""

    key, label = "go", "Go proxy, userspace style"
    descriptors_each = 6

    def command(self) -> list[str]:
        flags = [
            f"--{PORTS[name].protocol.lower()}={number}="
            + ",".join(self.site.endpoints(PORTS[name]))
            for name, number in self.proxy_ports()
        ]
        return [str(self.tools.goproxy), *flags]

    def environment(self) -> dict[str, str]:
        return {"GOMAXPROCS": "1"}


class HAProxy(Peer):
    """Debian's HAProxy with one thread, in TCP mode, otherwise with its defaults."""

    key, label = "haproxy", "HAProxy, one thread"
    serves = TCP_ONLY
    descriptors_each = 2
    source = ""
    """The address from which HAProxy dials, in its configuration's syntax; empty if HAProxy
    chooses it."""

    @classmethod
    def find_programs(cls) -> None:
        find_program("haproxy")

    def command(self) -> list[str]:
        config = self.folder / "haproxy.cfg"
        config.write_text(self._config())
        return [*self.program(), "-db", "-f", str(config)]

    def program(self) -> list[str]:
        """Return the command that runs HAProxy, without its flags."""
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
    """HAProxy with transparent sockets, so that endpoints see the client's own address."""

    key, label = "haproxy-client", "HAProxy, one thread, the client's address"
    source = "0.0.0.0 usesrc clientip"
    preserves_client_address = True

    def open(self) -> None:
        """Add the rules that deliver replies to clients' addresses to this node.

        Source: the commands in the kernel's Documentation/networking/tproxy.rst.
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
    """A newer HAProxy with the same configuration as ``haproxy``."""

    key, label = "haproxy-newer", "HAProxy of a newer Debian, one thread"
    is_optional = True

    @classmethod
    def find_programs(cls) -> None:
        find_newer_haproxy()

    def program(self) -> list[str]:
        return find_newer_haproxy().command


class Nginx(Peer):
    """Debian's nginx with its stream module and one worker, otherwise with its defaults."""

    key, label = "nginx", "nginx stream, one worker"
    descriptors_each = 2

    @classmethod
    def find_programs(cls) -> None:
        find_nginx()

    def command(self) -> list[str]:
        config = self.folder / "nginx.conf"
        config.write_text(self._config())
        return [find_nginx(), "-p", str(self.folder), "-e", "stderr", "-c", str(config)]

    def _config(self) -> str:
        # A user namespace has no other user for the worker. Both sides of a connection count.
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

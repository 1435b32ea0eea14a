"""Implements ``forward``, which serves a cluster's Services on this machine's loopback.

clients, names ──▶ Proxy, steering none ──▶ API server ──▶ pods
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from userspace_proxy.causes.say import say
from userspace_proxy.cli.command import DONE, Given
from userspace_proxy.cli.kubeconfig import find
from userspace_proxy.cli.service_argument import ServiceArguments
from userspace_proxy.cli.terminal import columns_of
from userspace_proxy.errors import ConfigError, UserspaceProxyError
from userspace_proxy.facts.units import plural
from userspace_proxy.hosts import is_loopback_address
from userspace_proxy.linux import raise_descriptor_limit
from userspace_proxy.loops import loop_factory
from userspace_proxy.model import ServiceKey, SocketAddress
from userspace_proxy.model.addresses import TO
from userspace_proxy.status.wrapping import placed

if TYPE_CHECKING:
    from userspace_proxy.agent.rounds.options import Options
    from userspace_proxy.config import Settings
    from userspace_proxy.embedding import Proxy

    from ..forward.source import ForwardSource

Write = Callable[[str], object]
# Settings of ``run`` without effect here: one process serves loopback, without steering.
_WITHOUT_EFFECT = ("bind_address", "workers", "steering", "proxy_port_range")


def forward(given: Given) -> int:
    """Forward until a signal; return the exit status.

    Raises:
        ConfigError: A flag or argument is wrong, or there is no kubeconfig.
        UserspaceProxyError: The API server doesn't respond, or denies access.
    """
    from userspace_proxy.cli.logs import set_up_logging
    from userspace_proxy.config.load import load_settings
    from userspace_proxy.config.settings import TABLE

    from ..forward.source import ForwardSource

    settings = load_settings(given.settings).settings
    for name in _WITHOUT_EFFECT:
        if name in settings.origins:
            raise ConfigError(
                f"--{TABLE[name].flag} has no effect in forward",
                hint="Services are at loopback addresses; --address=127.0.0.1 gives all one",
            )
    kubeconfig = find(given, settings)
    if kubeconfig is None and not settings.master:
        raise ConfigError("cannot forward: there is no kubeconfig", hint="give --kubeconfig=FILE")
    set_up_logging(settings.log_format, settings.verbosity)
    if "verbosity" not in settings.origins:
        # Changes are printed by this command, so they needn't be logged.
        logging.getLogger("userspace_proxy").setLevel(logging.WARNING)
    wanted, namespace = wanted_services(given, settings)
    address = wanted_address(given)
    raise_descriptor_limit()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:

        async def main() -> None:
            source = ForwardSource(
                kubeconfig=kubeconfig or "",
                master=settings.master,
                wanted=wanted,
                namespace=namespace,
                address=address,
            )
            await _forward(source, make_options(settings, source), _print)

        runner.run(main())
    return DONE


def wanted_services(given: Given, settings: Settings) -> tuple[frozenset[ServiceKey], str]:
    """Return the named Services (none: all), and the namespace to read (empty: all).

    Raises:
        ConfigError: An argument isn't a Service.
    """
    arguments = ServiceArguments(given, settings, reads_cluster=True)
    for word in given.arguments:
        # Port arguments as kubectl accepts them: 8080, 8080:80, :http.
        if word.isdecimal() or (":" in word and "://" not in word):
            raise ConfigError(
                f"{word!r} is not a Service",
                hint="all ports of a Service are forwarded, at an address of its own",
            )
    names = [arguments.names(word)[0].partition(":")[0] for word in given.arguments]
    wanted = frozenset(map(ServiceKey.read, names))
    if given.is_on("all-namespaces"):
        return wanted, ""
    if not wanted:
        return wanted, arguments.namespace or "default"
    namespaces = {key.namespace for key in wanted}
    return wanted, namespaces.pop() if len(namespaces) == 1 else ""


def wanted_address(given: Given) -> str:
    """Return the common address of all Services; empty if each has its own.

    Raises:
        ConfigError: The given address isn't an IPv4 loopback address.
    """
    text = given.values.get("address", "")
    address = "127.0.0.1" if text == "localhost" else text
    if address and not (is_loopback_address(address) and ":" not in address):
        raise ConfigError(
            f"--address={text}: it is no IPv4 address of loopback",
            hint="forward serves this machine alone; kubectl port-forward can serve others",
        )
    return address


def make_options(settings: Settings, source: ForwardSource) -> Options:
    """Return options like those of ``run``; metrics and health checks only if configured."""
    from userspace_proxy.agent.run import make_options as options_of_run

    from ..forward.source import CONNECT_S

    made = options_of_run(settings)
    if "connect_timeout_s" not in settings.origins:
        made = replace(made, tuning=replace(made.tuning, connect_timeout_s=CONNECT_S))
    return source.options(
        replace(
            made,
            node_name="",
            proxy_name=None,
            dns=made.dns or ("127.0.0.1", 0),
            admin=made.admin if "metrics_bind_address" in settings.origins else None,
            health=made.health if "healthz_bind_address" in settings.origins else None,
            state_dir="",
        )
    )


async def _forward(source: ForwardSource, options: Options, write: Write) -> None:
    from userspace_proxy.agent.rounds.tasks import first_of
    from userspace_proxy.embedding import Proxy

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await first_of(source.check_access(), stop.wait())
    async with Proxy(source=source, options=options) as proxy:
        shown: dict[str, ForwardedPort] | None = None
        left_out: list[tuple[str, str]] = []
        said: set[str] = set()
        while not stop.is_set():
            outcome = await first_of(proxy.failed(), stop.wait(), source.published.wait())
            if isinstance(outcome, UserspaceProxyError):
                raise outcome
            if stop.is_set():
                break
            source.published.clear()
            await proxy.settled()
            before, shown = shown, forwarded_ports(proxy)
            last, left_out = left_out, list(left_out_of(proxy, source))
            taken = set(await asyncio.to_thread(taken_addresses, proxy, source)) - said
            said |= taken
            if before is None:
                head, dns, columns = _head(source), _dns(proxy, shown), columns_of(sys.stdout)
                write(render_start(shown, left_out, head=head, dns=dns, columns=columns))
            else:
                for line in (*render_changes(before, shown), *render_left_out(last, left_out)):
                    write(f"{line}\n")
            for line in sorted(taken):
                write(f"{line}\n")


def left_out_of(proxy: Proxy, source: ForwardSource) -> Iterator[tuple[str, str]]:
    """Yield the Services, ports and port ranges that aren't forwarded, each with the reason."""
    for one in source.services.left_out:
        yield _name(one.service, one.port), one.reason
    for item in proxy.status().ignored:
        if item.is_conflict:
            yield _name(ServiceKey.read(item.service), item.port), say(item.cause)
    for view in proxy.status().ports:
        for note in view.notes:
            # Only notes about port ranges contain a requested port.
            if note.get("asked"):
                yield _name(view.plan.key.name.service, view.plan.key.name.port), say(note)


def taken_addresses(proxy: Proxy, source: ForwardSource) -> Iterator[str]:
    """Yield a line for each Service's address and port that another program or Service holds."""
    from userspace_proxy.kernel.port_holders import holders_at

    wanted: set[SocketAddress] = set()
    for view in proxy.status().ports:
        frontend = view.plan.frontends[0]
        address = proxy.address_of(view.plan.key.name.service, view.plan.key.name.port)
        for port in filter(None, (frontend.port, source.services.second_port(frontend))):
            if address is not None and address.port == port:
                break
            wanted.add(SocketAddress(frontend.ip, port))
    own = {port.address: port.name for port in forwarded_ports(proxy).values()}
    for at, holder in holders_at(wanted).items():
        is_named = holder.name and holder.pid
        who = f"{holder.name}, pid {holder.pid}" if is_named else str(holder)
        # The holder may be another forwarded Service, such as a Service whose port 80 became 8080.
        first = own.get(str(at))
        yield f"{at} is that of {first} until this ends" if first else f"{at} is taken by {who}"


def forwarded_ports(proxy: Proxy) -> dict[str, ForwardedPort]:
    """Return the Service ports, forwarded or not, by name."""
    ports = {}
    for view in proxy.status().ports:
        key, port = view.plan.key.name.service, view.plan.key.name.port
        number = view.plan.frontends[0].port
        address = proxy.address_of(key, port)
        problem = f"{view.problem} ({view.hint})" if view.hint else view.problem
        if not problem and view.plan.cause is not None:
            problem = say(view.plan.cause)
        name = f"{key.name}.{key.namespace}:{number}"
        count = len(view.plan.serving.endpoints)
        ranges = (one.address for one in view.frontends if TO in one.address)
        ports[name] = ForwardedPort(name, next(ranges, str(address or "")), count, problem)
    return dict(sorted(ports.items()))


def _name(service: ServiceKey, port: str) -> str:
    name = f"{service.name}.{service.namespace}"
    return f"{name}:{port}" if port else name


def _head(source: ForwardSource) -> str:
    place = f"namespace {source.namespace}" if source.namespace else "all namespaces"
    return f"Services of {place}, through the API server at {source.location}"


def _dns(proxy: Proxy, shown: Iterable[str]) -> str:
    assert proxy.dns_address is not None
    ip, port = proxy.dns_address
    name = next((name.partition(":")[0] for name in shown), "NAME.NAMESPACE")
    return f"names by DNS:  dig @{ip} -p {port} {name}.svc.cluster.local"


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class ForwardedPort:
    """A Service port that this machine serves, or can't serve because of ``problem``."""

    name: str
    """``web.shop:80``, with the port's number in the cluster."""
    address: str
    """The address on which the port is served; may be empty."""
    pods: int = 0
    problem: str = ""
    """Why the port isn't served, or refuses clients."""


def render_start(
    ports: Mapping[str, ForwardedPort],
    left_out: Sequence[tuple[str, str]],
    *,
    head: str,
    dns: str,
    columns: int = 0,
) -> str:
    """Return the text that is printed once the first Services are served.

    Args:
        ports: The forwarded ports by name.
        left_out: The Services that aren't forwarded, with the reasons.
        head: The first line.
        dns: The line that shows how to query the DNS server.
        columns: The terminal's width; 0 if unlimited.
    """
    rows = [(port.name, port.address or "-", _state(port)) for port in ports.values()]
    lines = [head, *_table([("NAME", "ADDRESS", "PODS"), *rows] if rows else [], columns)]
    if left_out:
        lines += ["not forwarded:", *_table(left_out, columns)]
    lines += [dns, "Ctrl-C ends it"]
    return "".join(f"{line}\n" for line in lines)


def render_changes(
    before: Mapping[str, ForwardedPort], now: Mapping[str, ForwardedPort]
) -> Iterator[str]:
    """Yield a line for each Service port that was added, removed or changed."""
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if new is None:
            yield f"- {name} is gone"
        elif old is None:
            yield f"+ {name} at {new.address or '-'}: {_state(new)}"
        elif old != new:
            moved = "" if old.address == new.address else f" at {new.address or '-'}"
            yield f"  {name}{moved}: {_state(new)}"


def render_left_out(
    before: Sequence[tuple[str, str]], now: Sequence[tuple[str, str]]
) -> Iterator[str]:
    """Yield a line for each Service or port with a new reason why it isn't forwarded."""
    for what, why in now:
        if (what, why) not in before:
            yield f"  {what} is not forwarded: {why}"


def _state(port: ForwardedPort) -> str:
    if port.problem:
        return port.problem
    return plural(port.pods, "pod")


def _table(rows: Sequence[Sequence[str]], columns: int) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths[:-1], strict=False))
        yield from placed(f"  {'  '.join(cells)}  ", row[-1], columns)

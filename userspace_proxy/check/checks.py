"""Collects all findings in reading order: input, steering, node."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator, Mapping, Sequence

from ..agent.lock import running_proxies
from ..agent.rounds.options import Options
from ..agent.run import make_options, make_source, start_checks
from ..config import Settings
from ..dataplane.calls import IS_COMPILED
from ..errors import ConfigError, UserspaceProxyError
from ..filters.following import WAYS
from ..kernel.offers import KernelOffers
from ..kernel.own_namespace import is_own_namespace
from ..kernel.privileges import read_sysctls
from ..linux import bounded
from ..log_fields import FieldLogger
from ..plane import default_workers
from ..steering import proxy_label
from ..steering.kernel_view import KernelView, read_kernel
from ..steering.selection import read_offers_for
from . import client_address, network, ports
from .api_server import look_at_server, look_at_wake
from .finding import Finding, Mark, error, ok, reason, warning
from .firewalls import look_at_firewalls
from .inputs import Inputs, judge_settings, look_at_manifests
from .leftovers import judge_kube_proxy, judge_own
from .offers import chosen, judge_path, look_at_steering

_log = FieldLogger("userspace_proxy.check")


def check_settings(
    settings: Settings, warnings: Sequence[str], problem: ConfigError | None = None
) -> list[Finding]:
    """Return findings about everything that ``run`` requires with these settings.

    Args:
        warnings: Warnings from reading the settings.
        problem: Why the file can't be used; None if it can be used, or there is no file.
    """
    found = judge_settings(warnings, settings.config_file, problem)
    try:
        options = make_options(settings)
    except ConfigError as exc:
        return [*found, error("config", reason(exc))]
    own_namespace = is_own_namespace()
    offered = read_offers_for(settings.steering)
    steering = chosen(settings.steering, offered, own_namespace=own_namespace)
    more, inputs = _look_at_source(settings, options, steering, offered)
    found += more
    found += look_at_steering(
        settings.steering, steering, options, offered, own_namespace=own_namespace
    )
    proxies, label = running_proxies(), proxy_label(options.proxy_name or "")
    kernel = read_kernel(*WAYS, "forward") if steering not in ("none", "") else KernelView()
    found += [warning("kernel", line, hint="run as root") for line in kernel.unread]
    relieves = settings.take_over or settings.steering == "none"
    found += judge_running(proxies, label, relieves=relieves)
    if steering != "none":
        found += judge_own(kernel, list(proxies))
    found += check_node(settings, steering, kernel)
    if steering not in ("none", ""):
        found += look_at_firewalls(kernel, steering, options.proxy_ports, inputs, settings.path)
    if steering not in ("none", "") and settings.preserve_client_address != "never":
        found += client_address.judge_client_address(
            client_address.find_obstacle(offered),
            client_address.find_bridge_obstacles(options.cluster_networks, offered),
        )
    found += client_address.judge_trusted_peers(
        settings.accept_proxy_protocol, options.cluster_networks
    )
    ranges = _service_ranges(settings, inputs)
    found += _interfaces(steering, ranges)
    found += _routes(steering, ranges)
    found += ports.judge_holders(
        ports.find_holders(
            (
                ("--healthz-bind-address", settings.healthz_bind_address),
                ("--metrics-bind-address", settings.metrics_bind_address),
            )
        ),
        list(proxies.values()),
    )
    if steering not in ("none", ""):
        holder = ports.find_range_holder(options.proxy_ports)
        found += ports.judge_range_holder(holder, options.proxy_ports, list(proxies.values()))
    found += _data_plane(options, inputs)
    relieves = settings.take_over and label in proxies
    asked = start_checks(settings, options, make_source(settings), offered, relieves=relieves)
    named = {finding.topic for finding in found if finding.mark is Mark.ERROR}
    return [*found, *(one for one in _refusals(asked) if one.topic not in named)]


def _refusals(asked: Mapping[str, Callable[[], None]]) -> Iterator[Finding]:
    for topic, start_check in asked.items():
        try:
            start_check()
        except UserspaceProxyError as exc:
            yield error(topic, reason(exc))


def _look_at_source(
    settings: Settings, options: Options, steering: str, offered: KernelOffers
) -> tuple[list[Finding], Inputs]:
    if not settings.manifests:
        found, inputs = look_at_server(settings, settings.node_name)
        return [*found, *look_at_wake(settings, settings.node_name)], inputs
    cidrs = settings.service_cluster_ip_range
    return look_at_manifests(
        settings.manifests,
        options=options,
        steering=steering,
        service_cidrs=cidrs,
        kernel=offered,
    )


def check_node(
    settings: Settings, steering: str, kernel: KernelView | None = None
) -> list[Finding]:
    """Return findings about the node's state that affects steering, except firewalls.

    The agent calls this function at startup, and watches firewalls continuously. The call blocks
    for about 50 ms, and imports no large library.

    Args:
        steering: The steering mode that is, or would be, in use.
        kernel: The result of :func:`read_kernel`; None to read the kernel now.
    """
    found = judge_path(settings.path, steering)
    if steering in ("none", ""):
        return found
    if kernel is None:
        kernel = read_kernel(*WAYS, "forward")
    proxy_ports = (settings.proxy_port_range.first, settings.proxy_port_range.last)
    sysctls = read_sysctls(network.SYSCTLS)
    uses_client_ports = settings.preserve_client_address != "never"
    return [
        *found,
        *judge_kube_proxy(kernel, steering, is_beside=bool(settings.service_proxy_name)),
        *network.judge_sysctls(sysctls),
        *ports.judge_ranges(sysctls, proxy_ports, uses_client_ports=uses_client_ports),
    ]


def log_findings(settings: Settings, steering: str) -> None:
    """Log the warnings and errors of :func:`check_node`."""
    for finding in check_node(settings, steering):
        if finding.mark is not Mark.OK:
            _log.warning(
                "check found a problem: %(finding)s",
                extra={
                    "topic": finding.topic,
                    "finding": finding.what,
                    "where": finding.where,
                    "remedy": finding.hint,
                },
            )


def judge_running(proxies: dict[str, int], label: str, *, relieves: bool) -> list[Finding]:
    """Report a running proxy with the same label: ``run`` would take over from it, or fail."""
    if label not in proxies:
        return []
    what = f"another userspace-proxy (pid {proxies[label]}) steers this node"
    mark = warning if relieves else error
    return [mark("leftovers", what, hint="relieve it with --take-over, or stop it")]


def _service_ranges(settings: Settings, inputs: Inputs) -> tuple[str, ...]:
    if settings.manifests or not inputs.service_ips:
        return settings.service_cluster_ip_range
    return inputs.service_ips


def _interfaces(steering: str, ranges: Sequence[str]) -> list[Finding]:
    if steering in ("none", ""):
        return []
    return network.judge_interfaces(network.look_at_interfaces(), steering, ranges)


def _routes(steering: str, ranges: Sequence[str]) -> list[Finding]:
    # Routes don't matter here: local steering adds them itself, and without steering clients don't
    # dial these addresses.
    if steering in ("none", "local", ""):
        return []
    return network.judge_routes(ranges, network.find_refusals(map(network.sample_of, ranges)))


def _data_plane(options: Options, inputs: Inputs) -> list[Finding]:
    limit = bounded(resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    found = ports.judge_descriptors(
        limit, inputs.service_ports, options.workers or default_workers(), options.proxy_ports
    )
    return [*found, ok("data plane", "its modules are compiled")] if IS_COMPILED else found

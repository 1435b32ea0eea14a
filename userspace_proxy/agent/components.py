"""Lists a proxy's components: a new watcher requires a file of its own and one line here."""

from __future__ import annotations

from collections.abc import Iterator

from .core import Core
from .hand_over import Relief
from .node_setup import watch_kernel_path
from .proxy_parts import PlaneComponent, SourceComponent, SyncComponent
from .rounds.component import Component, OwnAddresses
from .scaling import Scaling
from .status_servers import PortCounters, Shown, StatusServers
from .watchers.compared import Compared
from .watchers.ejected import EjectedEndpoints
from .watchers.endpoint_names import EndpointNames
from .watchers.firewalls import FirewallWatch, read_forward_rules
from .watchers.kernel_answers import KernelAnswers
from .watchers.last_state import LastState
from .watchers.names import NamesByDns, ProxyNames
from .watchers.printed_addresses import AddressPrinter
from .watchers.ready_socket import ReadySocket
from .watchers.tracking import TrackingWatch


def components_of(core: Core, shown: Shown, own: OwnAddresses) -> Iterator[Component]:
    """Yield the components of a proxy in start order; the agent closes them in reverse order.

    Args:
        shown: The functions that the status servers call.
        own: Receives the servers' addresses.
    """
    options, source, steering, sync = core.options, core.source, core.steering, core.sync
    plane, served_ports, progress = core.plane, core.served_ports, core.sync.progress
    last_state = LastState(sync, source, options)
    names_of_endpoints = EndpointNames(sync, last_state.publish, source.kind, options)

    yield PlaneComponent(plane, progress, core.observation)
    yield core.node
    yield core.health_checks
    yield SyncComponent(sync, served_ports, steering)
    yield Scaling(core)
    yield EjectedEndpoints(plane, served_ports, steering, can_probe=options.dialer is None)
    # Start the saved state before the status servers, whose imports are slow.
    yield last_state
    yield names_of_endpoints
    answers = KernelAnswers(steering, served_ports, read_forward_rules)
    yield from watch_kernel_path(core, answers)
    yield Compared(progress, plane, source.kind, options)
    counters = PortCounters(served_ports, plane)
    yield StatusServers(options, plane, sync, counters, shown, own, core.observing)
    names = ProxyNames(progress, served_ports.listeners, steering.bind, options)
    yield NamesByDns(names, options, own)
    if steering.name != "none":
        exempted = own if core.is_own_steering else None
        yield TrackingWatch(source.record, exempted, options.proxy_name, kernel=core.kernel)
        if core.client_addresses is not None:
            yield core.client_addresses
        if core.is_own_steering:
            # A proxy with a name may run beside kube-proxy, whose rules are expected then.
            is_sole = not options.proxy_name
            ports, note_legacy = options.proxy_ports, steering.note_legacy
            yield FirewallWatch(steering.name, ports, is_sole=is_sole, note_legacy=note_legacy)
            yield answers
    if (write := options.write_addresses) is not None:
        yield AddressPrinter(progress, served_ports, steering.bind, write)
    yield SourceComponent(source, names_of_endpoints.publish)
    if options.ready_socket:
        yield ReadySocket(options.ready_socket, source, progress, plane)
    # Relief is last: if another component fails to start, the previous process keeps the node.
    yield Relief(core.previous_workers, progress, plane, options)

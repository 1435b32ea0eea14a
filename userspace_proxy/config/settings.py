# ruff: noqa: RUF009  (defaults are immutable, and a row is a call)
"""Defines the table of all settings, from which flags, help, files and docs are generated.

Each field has a default and a row (see ``setting_table``): its flag, its fields in files, its kind,
its help, and the reason for the default. To add a setting, add a field here and run ``make docs``.
A field of ``Options`` or ``Tuning`` with that name, or the row's ``option``, receives the value.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from ..errors import ConfigError
from ..model import DataPath, SocketAddress
from ..model.endpoint_names import read_host
from ..model.quoting import shell_command
from ..names import CLUSTER_DOMAIN
from .forms import (
    DOMAIN,
    EXTERNAL_CIDRS,
    JOINED_CIDRS,
    LABEL_VALUE,
    NODE_ADDRESS,
    NODE_NAME,
    NODEPORT_ADDRESSES,
    SERVER,
    SERVICE_CIDRS,
    WORKERS,
    dns_address,
    folder,
    listen_address,
)
from .kinds import (
    BOOL,
    GATES,
    PATH,
    SHARE,
    TEXT,
    choice,
    duration,
    integer,
    port_range,
    texts,
    wrong_type,
)
from .setting_table import Origin, Topic, rows_of, setting
from .values import ListenAddress, PortRange

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_OptionsT = TypeVar("_OptionsT", bound="DataclassInstance")

# The default proxy ports: below node ports (30000–32767) and ephemeral ports (32768–60999), which
# the node's own outgoing connections may use during a restart.
PROXY_PORTS = PortRange(17000, 29999)


def _read_off(value: object) -> str:
    """Return ``off`` for false, because YAML reads an unquoted ``off`` as false."""
    if value is False:
        return "off"
    raise wrong_type(value, "text")


_SOCKET_LB = replace(choice("off", "auto", "required"), read_plain=_read_off)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one run. Units are in the names; a string is empty if nothing is set.

    Networks and addresses are in canonical form; lists keep the order of the file or flag.
    """

    # Formatted as a table, so that a setting can be read at a glance.
    # fmt: off
    config_file: str = setting(
        "", kind=PATH, topic=Topic.SOURCE, flag="config",
        help="file with a KubeProxyConfiguration, a UserspaceProxyConfiguration, or both",
        shown_default="none", why="flags and defaults suffice",
    )
    kubeconfig: str = setting(
        "", kind=PATH, topic=Topic.SOURCE, flag="kubeconfig",
        kube_field="clientConnection.kubeconfig",
        help="file with the address of the API server and the credentials for it",
        shown_default="none", why="a pod uses its service account",
    )
    master: str = setting(
        "", kind=SERVER, topic=Topic.SOURCE, flag="master", own_field="master",
        help="URL of the API server, instead of the kubeconfig's",
        shown_default="none", why="the kubeconfig or the pod's environment contains it",
    )
    manifests: str = setting(
        "", kind=PATH, topic=Topic.SOURCE, flag="manifests", own_field="manifests",
        help="file or folder with Services and EndpointSlices, instead of an API server",
        shown_default="none", why="Services come from an API server",
    )
    endpoints_from_pods: bool = setting(
        False, kind=BOOL, topic=Topic.SOURCE, flag="endpoints-from-pods",
        own_field="endpointsFromPods",
        help="derive the endpoints of Services with a selector from Pods, for an API server "
        "without controllers (envtest, KWOK); EndpointSlices of these Services are ignored",
        why="clusters have a controller that writes EndpointSlices, and Pods cost much to watch",
    )
    allow_wake: bool = setting(
        False, kind=BOOL, topic=Topic.SOURCE, flag="allow-wake", own_field="allowWake",
        help="scale the workload that a Service names (annotation wake) from 0 to 1 while its "
        "clients wait, and from 1 to 0 once it has had none for a time (annotation idle-after); "
        "requires permissions (chart value wake.namespaces)",
        why="a proxy changes nothing in the cluster unless it is asked to",
    )
    allow_endpoint_names: tuple[str, ...] = setting(
        (), kind=texts("SUFFIX,...", read_host), topic=Topic.SOURCE, flag="allow-endpoint-names",
        own_field="allowEndpointNames",
        help="names that Services may have as endpoints (annotation endpoints, EndpointSlices of "
        "addressType FQDN), each with all names below it: example.com; they are looked up by the "
        "DNS servers of this node. With an API server, names also require --cluster-cidr",
        shown_default="none",
        why="a user who can write a Service could make each node dial what a name resolves to",
    )
    service_cluster_ip_range: tuple[str, ...] = setting(
        ("10.96.0.0/12",), kind=SERVICE_CIDRS, topic=Topic.SOURCE,
        flag="service-cluster-ip-range", own_field="serviceClusterIPRange",
        help="range from which ClusterIPs are allocated for manifests without one; no endpoint by "
        "name may be in it",
        why="kubeadm's default",
    )
    service_proxy_name: str = setting(
        "", kind=LABEL_VALUE, topic=Topic.SOURCE, flag="service-proxy-name",
        own_field="serviceProxyName",
        help="serve only Services with this label service.kubernetes.io/service-proxy-name",
        shown_default="none", why="as kube-proxy: Services without the label",
        option="proxy_name", convert=lambda name: name or None,
    )
    state_dir: str = setting(
        "auto", kind=folder(), topic=Topic.SOURCE, flag="state-dir", own_field="stateDir",
        help="folder in which the saved state is kept: after a restart it is served until the API "
        "server or the manifests have been read; auto: /var/lib/userspace-proxy for root, "
        "userspace-proxy in $XDG_STATE_HOME for other users; disabled: it isn't kept",
        why="Services are served after a restart while the API server is down",
    )
    state_max_age_s: float = setting(
        86400.0, kind=duration(least_s=1.0), topic=Topic.SOURCE, flag="state-max-age",
        own_field="stateMaxAge",
        help="how long the saved state may be served after it was last current",
        why="an API server is rarely down for a day, and addresses of pods are reused",
    )
    config_sync_period_s: float = setting(
        900.0, kind=duration(least_s=1.0, zero_means=900.0), topic=Topic.SOURCE,
        flag="config-sync-period", kube_field="configSyncPeriod",
        help="how often kube-proxy refreshes its configuration",
        why="kube-proxy's default",
        no_effect="each change is compared with the full state anyway",
    )
    hostname_override: str = setting(
        "", kind=NODE_NAME, topic=Topic.NODE, flag="hostname-override",
        kube_field="hostnameOverride",
        help="name of this node in Kubernetes",
        shown_default="the host's name", why="kubelet registers the node under it",
    )
    bind_address: str = setting(
        "0.0.0.0", kind=NODE_ADDRESS, topic=Topic.NODE, flag="bind-address",
        kube_field="bindAddress",
        help="this node's primary address; the servers' default addresses have its family; nothing "
        "is bound to it",
        why="kube-proxy's default",
        option="node_addresses", convert=lambda ip: () if ip in {"0.0.0.0", "::"} else (ip,),
    )
    cluster_cidr: tuple[str, ...] = setting(
        (), kind=JOINED_CIDRS, topic=Topic.NODE, flag="cluster-cidr",
        kube_field="clusterCIDR",
        help="addresses of the cluster's pods, one CIDR per family",
        shown_default="none", why="it can't be detected",
        option="cluster_networks",
    )
    detect_local_mode: Literal[
        "ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"
    ] = setting(
        "ClusterCIDR",
        kind=choice("ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"),
        topic=Topic.NODE, flag="detect-local-mode", kube_field="detectLocalMode",
        help="which pods count as internal clients for externalTrafficPolicy: with ClusterCIDR "
        "all pods of the cluster, with NodeCIDR the pods of this node, according to its Node "
        "object",
        why="kube-proxy's default",
        no_effect="BridgeInterface and InterfaceNamePrefix are treated as ClusterCIDR",
        harmless=("NodeCIDR",),
        option="only_own_pods", convert=lambda mode: mode == "NodeCIDR",
    )
    nodeport_addresses: tuple[str, ...] = setting(
        (), kind=NODEPORT_ADDRESSES, topic=Topic.NODE, flag="nodeport-addresses",
        kube_field="nodePortAddresses",
        help="CIDRs of the local addresses on which node ports are served; also primary, "
        "localhost, all",
        shown_default="all local addresses; in mode nftables primary", why="kube-proxy's default",
        option="node_port_networks",
    )
    allow_external_ips: tuple[str, ...] = setting(
        (), kind=EXTERNAL_CIDRS, topic=Topic.NODE, flag="allow-external-ips",
        own_field="allowExternalIPs",
        help="networks whose addresses Services may have as external IPs",
        shown_default="none",
        why="a user who can write a Service could intercept any traffic (CVE-2020-8554)",
        option="external_ip_networks",
    )
    allow_node_endpoints: bool = setting(
        False, kind=BOOL, topic=Topic.NODE, flag="allow-node-endpoints",
        own_field="allowNodeEndpoints",
        help="serve endpoints at this node's own addresses that EndpointSlices of an API server "
        "don't name as pods of this node (targetRef, nodeName), not only for default/kubernetes",
        why="a user who can write a slice could direct pods to daemons that the node's firewall "
        "closes to them: the proxy dials from the node",
    )
    connect_timeout_s: float = setting(
        1.0, kind=duration(least_s=0.001), topic=Topic.CONNECTIONS, flag="connect-timeout",
        own_field="connectTimeout",
        help="how long to wait for an endpoint before the next one is tried; if no endpoint "
        "answers, the client is reset after three times as long",
        why="a lost SYN is retransmitted after 1 s: a longer silence means a dead endpoint",
    )
    drain_s: float = setting(
        5.0, kind=duration(), topic=Topic.CONNECTIONS, flag="drain-timeout",
        own_field="drainTimeout",
        help="how long open connections may continue after SIGTERM; 0: they end at once",
        why="new connections fail in the last second; a pod has 30 s in total",
    )
    tcp_idle_s: float = setting(
        86400.0, kind=duration(zero_means=86400.0, least_s=1.0), topic=Topic.CONNECTIONS,
        flag="conntrack-tcp-timeout-established", kube_field="conntrack.tcpEstablishedTimeout",
        help="how long a connection lives without a byte in either direction; 0: the default",
        why="kube-proxy's default for conntrack's entries",
    )
    tcp_half_closed_s: float = setting(
        3600.0, kind=duration(zero_means=3600.0, least_s=1.0), topic=Topic.CONNECTIONS,
        flag="conntrack-tcp-timeout-close-wait", kube_field="conntrack.tcpCloseWaitTimeout",
        help="how long a half-closed connection lives without a byte, here and, if conntrack's own "
        "timeout is shorter, in conntrack; 0: the default",
        why="kube-proxy's default for conntrack's entries",
    )
    udp_idle_s: float | None = setting(
        None, kind=duration(zero_means=None, least_s=0.001), topic=Topic.CONNECTIONS,
        flag="udp-idle-timeout", own_field="udpIdleTimeout",
        help="how long a UDP flow lives without a datagram; 0: the default",
        shown_default="30s after one exchange, 120s after more", why="conntrack's defaults",
    )
    workers: int | None = setting(
        None, kind=WORKERS, topic=Topic.CONNECTIONS, flag="workers", own_field="workers",
        help="number of unprivileged processes that carry traffic",
        shown_default="auto", why="one per two cores, 1 to 4; the node has other work",
    )
    preserve_client_address: Literal["auto", "never"] = setting(
        "auto", kind=choice("auto", "never"), topic=Topic.CONNECTIONS,
        flag="preserve-client-address", own_field="preserveClientAddress",
        help="whether endpoints see the client's own address",
        why="network policies and pods see the client, wherever replies return through this node",
        option="preserves_client_address", convert=lambda when: when == "auto",
    )
    accept_proxy_protocol: tuple[str, ...] = setting(
        (), kind=EXTERNAL_CIDRS, topic=Topic.CONNECTIONS, flag="accept-proxy-protocol",
        own_field="acceptProxyProtocol",
        help="networks of load balancers whose TCP connections begin with a header of the PROXY "
        "protocol, version 1 or 2, which announces the client's address",
        shown_default="none", why="a client that sends such a header can claim any address",
        option="proxy_protocol_from",
    )
    steering: Literal["auto", "iptables", "nftables", "local", "none"] = setting(
        "auto", kind=choice("auto", "iptables", "nftables", "local", "none"), topic=Topic.STEERING,
        flag="steering", own_field="steering",
        help="how traffic for Service addresses reaches the proxy",
        why="follows what the node already uses",
    )
    path: Literal["userspace", "kernel", "auto"] = setting(
        "userspace", kind=choice("userspace", "kernel", "auto"), topic=Topic.STEERING,
        flag="path", own_field="path",
        help="how the bytes of Services without the annotation userspace-proxy.io/path travel: "
        "through the proxy, or by the kernel's address translation straight to an endpoint; "
        "auto: by the kernel while all endpoints answer probes; kernel and auto need "
        "--steering=nftables",
        why="fail-over and counters need the proxy",
        convert=DataPath,
    )
    allow_paths: tuple[str, ...] = setting(
        ("userspace", "kernel", "auto"),
        kind=texts("PATH,...", choice("userspace", "kernel", "auto").parse),
        topic=Topic.STEERING, flag="allow-paths", own_field="allowPaths",
        help="the paths that the annotation userspace-proxy.io/path of a Service may choose; for "
        "other Services --path decides. Without auto, no annotation can make this node probe "
        "endpoints",
        why="probes have a budget, and Services take turns",
        option="allowed_paths", convert=lambda paths: tuple(map(DataPath, paths)),
    )
    allow_port_ranges: Literal["cluster-ip", "all", "none"] = setting(
        "cluster-ip", kind=choice("cluster-ip", "all", "none"), topic=Topic.STEERING,
        flag="allow-port-ranges", own_field="allowPortRanges",
        help="the addresses at which the annotation userspace-proxy.io/port-ranges of a Service "
        "may open ranges of ports: its ClusterIPs; all its addresses, including external IPs and "
        "IPs of load balancers, which it may share with other Services; or none",
        why="a ClusterIP is its Service's alone",
        option="port_ranges",
    )
    socket_lb: Literal["off", "auto", "required"] = setting(
        "off", kind=_SOCKET_LB, topic=Topic.STEERING,
        flag="socket-lb", own_field="socketLB",
        help="translate connect() of this node's programs to frontends on the kernel path, by BPF; "
        "auto: if that works here, otherwise only by rules; required: or don't start",
        why="takes CAP_BPF and the host's cgroup v2",
    )
    socket_lb_cgroup: str = setting(
        "", kind=PATH, topic=Topic.STEERING, flag="socket-lb-cgroup", own_field="socketLBCgroup",
        help="the cgroup v2 directory whose programs are covered, with all directories below it",
        shown_default="the root", why="it contains all programs of the node",
    )
    socket_lb_host_only: bool = setting(
        False, kind=BOOL, topic=Topic.STEERING, flag="socket-lb-host-only",
        own_field="socketLBHostOnly",
        help="leave pods that have a network namespace of their own to the rules, for a mesh whose "
        "sidecars must see the Service's address",
        why="most pods have no sidecar",
    )
    proxy_port_range: PortRange = setting(
        PROXY_PORTS, kind=port_range(PROXY_PORTS), topic=Topic.STEERING, flag="proxy-ports",
        own_field="proxyPorts",
        help="local ports that are used as proxy ports: begin-end, begin+offset or a single port",
        why="below node ports and ephemeral ports, room for 10,000 Service ports",
        option="proxy_ports",
    )
    take_over: bool = setting(
        False, kind=BOOL, topic=Topic.STEERING, flag="take-over", own_field="takeOver",
        help="take over the node from a running userspace-proxy, without a refused connection",
        shown_default="a second proxy is refused",
        why="two proxies on one node are a mistake more often than an upgrade",
    )
    iptables_sync_period_s: float = setting(
        30.0, kind=duration(least_s=1.0, zero_means=30.0), topic=Topic.STEERING,
        flag="iptables-sync-period", kube_field="iptables.syncPeriod",
        help="how often the rules in the kernel are compared in full",
        why="kube-proxy's default",
        no_effect="changes by other programs are noticed within a second, and all rules are "
        "compared every 30s",
    )
    iptables_min_sync_period_s: float = setting(
        0.1, kind=duration(zero_means=0.1), topic=Topic.STEERING, flag="iptables-min-sync-period",
        kube_field="iptables.minSyncPeriod",
        help="shortest time between two changes of the rules; changes in between are combined",
        why="with kube-proxy's 1s a second edit could wait for more than a second",
        option="min_sync_period_s",
    )
    proxy_mode: str = setting(
        "userspace", kind=TEXT, topic=Topic.STEERING, flag="proxy-mode", kube_field="mode",
        help="kube-proxy's mode",
        why="the only mode",
        no_effect="this proxy runs in userspace mode",
    )
    feature_gates: tuple[tuple[str, bool], ...] = setting(
        (), kind=GATES, topic=Topic.STEERING, flag="feature-gates", kube_field="featureGates",
        help="kube-proxy's feature gates",
        shown_default="none", why="there are none here",
        no_effect="this proxy has no feature gates",
    )
    healthz_bind_address: ListenAddress | None = setting(
        SocketAddress("0.0.0.0", 10256), kind=listen_address(10256), topic=Topic.SERVERS,
        flag="healthz-bind-address", kube_field="healthzBindAddress",
        help="where /healthz and /livez answer; also fd://N, or disabled",
        why="kube-proxy's default, for both families; load balancers probe it",
    )
    ready_socket: str = setting(
        "", kind=PATH, topic=Topic.SERVERS, flag="ready-socket", own_field="readySocket",
        help="path of a Unix socket that answers nothing once this process serves what it has "
        "read, and before that the reason why it doesn't yet",
        why="for the probe of a container: at the node's ports another process may answer",
    )
    metrics_bind_address: ListenAddress | None = setting(
        SocketAddress("127.0.0.1", 10249), kind=listen_address(10249), topic=Topic.SERVERS,
        flag="metrics-bind-address", kube_field="metricsBindAddress",
        help="where the status page and /metrics answer; also fd://N, or disabled",
        why="kube-proxy's default; the page reveals much, so only this node can reach it",
    )
    metrics_detail: Literal["node", "service", "endpoint"] = setting(
        "service", kind=choice("node", "service", "endpoint"), topic=Topic.SERVERS,
        flag="metrics-detail", own_field="metricsDetail",
        help="what /metrics contains in addition to the sums of the node: nothing, the Service "
        "ports that have had a client, or also their endpoints",
        why="as many series as Services that are used from this node",
    )
    dns_bind_address: SocketAddress | None = setting(
        None, kind=dns_address(), topic=Topic.SERVERS, flag="dns-bind-address",
        own_field="dnsBindAddress",
        help="address of a DNS server for names of Services, which answers as a cluster's DNS does",
        why="clusters have CoreDNS",
        option="dns",
    )
    dns_upstream: SocketAddress | None = setting(
        None, kind=dns_address(), topic=Topic.SERVERS, flag="dns-upstream",
        own_field="dnsUpstream",
        help="the DNS server that is asked for other names; disabled: they are refused",
        why="a test depends on no other machine unless it has to",
    )
    cluster_domain: str = setting(
        CLUSTER_DOMAIN, kind=DOMAIN, topic=Topic.SERVERS, flag="cluster-domain",
        own_field="clusterDomain",
        help="the domain of the names of Services",
        why="the default of kubelet and kubeadm",
    )
    print_addresses: Literal["disabled", "json"] = setting(
        "disabled", kind=choice("disabled", "json"), topic=Topic.SERVERS, flag="print-addresses",
        help="print to stdout where each Service port is dialled, and each change: lines of JSON, "
        "for the program that started this one",
        why="clients dial the addresses of Services",
    )
    log_format: Literal["text", "json"] = setting(
        "text", kind=choice("text", "json"), topic=Topic.SERVERS, flag="log-format",
        aliases=("logging-format",), kube_field="logging.format", own_field="logFormat",
        help="format of the log on stderr",
        why="for human readers",
    )
    verbosity: int = setting(
        0, kind=integer(0, 2**32 - 1), topic=Topic.SERVERS, flag="v",
        kube_field="logging.verbosity",
        help="how much is logged: 4 adds debugging",
        why="clusters often run kube-proxy with 2",
    )
    connection_log: float = setting(
        0.0, kind=SHARE, topic=Topic.SERVERS, flag="connection-log", own_field="connectionLog",
        help="the share of connections and UDP flows that are logged, one line each when they end: "
        "1 for all, 0.01 for one in a hundred",
        shown_default="0", why="a line costs more CPU time than a short connection",
    )
    cleanup: bool = setting(
        False, kind=BOOL, topic=Topic.ONCE, flag="cleanup", aliases=("cleanup-iptables",),
        help="remove all rules and routes of this program, and exit",
        why="",
    )
    write_config_to: str = setting(
        "", kind=PATH, topic=Topic.ONCE, flag="write-config-to",
        help="write these settings to a file for --config, and exit",
        shown_default="none", why="",
    )
    # fmt: on
    origins: Mapping[str, Origin] = field(default_factory=dict, compare=False, repr=False)
    """The origins of values by name; a setting whose name is missing has its default."""

    @property
    def node_name(self) -> str:
        """The node's name: the setting, otherwise the host name as kubelet derives it."""
        # Imported here because ``--help`` needs no socket.
        from socket import gethostname

        return self.hostname_override or gethostname().strip().lower()

    def as_rows(self) -> tuple[tuple[str, object, Origin], ...]:
        """Return (name, plain value, origin) of every setting, in the table's order.

        No setting is secret: credentials are only in the kubeconfig.
        """
        return tuple(
            (name, row.kind.write(getattr(self, name)), self.origins.get(name, "default"))
            for name, row in TABLE.items()
        )

    def as_given(self) -> str:
        """Return the settings that differ from the defaults: flags, then the file's fields.

        Both are in the table's order.
        """
        defaults, flags, fields_ = Settings(), [], []
        for name, row in TABLE.items():
            value, origin = getattr(self, name), self.origins.get(name)
            if origin is None or value == getattr(defaults, name):
                continue
            text = row.kind.write_text(value)
            if origin == "flag":
                flags.append(shell_command(f"--{row.flag}={text}"))
            else:
                fields_.append(f"{row.kube_field or row.own_field}={text}")
        file = f"its file: {' '.join(fields_)}" if fields_ else ""
        return "; ".join(filter(None, (" ".join(flags), file)))

    def beside(self, theirs: Mapping[str, object]) -> Settings:
        """Return a copy in which another proxy's settings, if valid, replace the defaults."""
        taken = {}
        for name in TABLE.keys() & theirs.keys() - self.origins.keys():
            with suppress(ConfigError):
                taken[name] = TABLE[name].kind.read(theirs[name])
        return replace(self, **taken)

    def as_options(self, options_class: type[_OptionsT]) -> _OptionsT:
        """Return options with these settings instead of the defaults."""
        wanted = {option.name for option in fields(options_class)}
        given: dict[str, object] = {}
        for name, row in TABLE.items():
            if (option := row.option or name) in wanted:
                value = getattr(self, name)
                given[option] = row.convert(value) if row.convert is not None else value
        return options_class(**given)


TABLE = rows_of(Settings)
"""The rows of all settings by name, in the order of help and docs."""

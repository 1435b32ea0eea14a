"""The cost model: the quantities that grow with input, with their bounds, costs and shares.

The tables of docs/security.md are generated from these rows (``make docs``). For each row with an
input, the test puts a namespace at the row's bound.

Rule 1: a bound limits the unit that causes the cost, and is the constant in the code.
Rule 2: costs are given per unit, as measured on the machine of docs/benchmarks.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.tools.markdown import replace_part, table
from userspace_proxy.balance.affinity import MAX_ENTRIES
from userspace_proxy.balance.source_hash import CLIENTS_MAX
from userspace_proxy.cli.explain import DIALLED_MAX
from userspace_proxy.cluster import host_queue, name_shares
from userspace_proxy.cluster.encoding import TEXT_BYTES_MAX
from userspace_proxy.dataplane.accepted_headers import HEADER_S
from userspace_proxy.dataplane.relay import PIPE_BYTES
from userspace_proxy.dataplane.tuning import BUFFER_BYTES, MAX_PIPES
from userspace_proxy.facts.edges import EDGES_MAX, EDGES_OF_A_PORT
from userspace_proxy.filters.reading import CHAINS_MAX
from userspace_proxy.lookup.dns_server import ELSEWHERE_MAX
from userspace_proxy.lookup.dns_wire import QUERY_BYTES_MAX
from userspace_proxy.model.annotations import HOLD_MAX, TEXT_MAX
from userspace_proxy.model.endpoint_names import NAMES_MAX
from userspace_proxy.model.proxy_protocol import HEADER_BYTES
from userspace_proxy.model.reading import HINTED_MAX
from userspace_proxy.model.similar import COMPARED_MAX
from userspace_proxy.model.yaml_builder import DOCUMENTS_MAX
from userspace_proxy.plan import bounds, kernel_room
from userspace_proxy.plane import path_probes, probe_schedule
from userspace_proxy.plane.authentication import SLOTS
from userspace_proxy.plane.channel import MAX_WAITING_BYTES
from userspace_proxy.plane.messages import MAX_GROUP_BYTES
from userspace_proxy.policy.usable import ENDPOINTS_MAX
from userspace_proxy.scaling.lease_notes import DEMAND_BYTES_MAX, ROUND_BYTES_MAX
from userspace_proxy.sources.kubernetes import events, shares
from userspace_proxy.sources.kubernetes.list_body import VALUE_BYTES_MAX
from userspace_proxy.sources.kubernetes.lists import LIST_S
from userspace_proxy.state_file import FILE_BYTES_MAX
from userspace_proxy.status.observing import RING
from userspace_proxy.status.search import MAX_LENGTH

from . import inputs
from .inputs import Input


@dataclass(frozen=True)
class Row:
    """A quantity that grows with input, and its bound."""

    grows: str
    bound: str
    """The bound with its unit."""
    share: str
    """The objects that share the bound."""
    costs: str
    """The cost of one unit."""
    at_the_bound: str
    largest: Sequence[Input] = ()
    """The largest inputs of one namespace; empty if another test checks the bound."""


_MANY = "[too-many-endpoints](troubleshooting.md#too-many-endpoints), an Event; "
_FRONTENDS = "[too-many-frontends](troubleshooting.md#too-many-frontends), an Event; "
_LEFT_OUT = "further ports, or the namespace's largest Services, "
_USERSPACE = "the largest Services of the namespaces with the most stay on the userspace path"
_EACH = "each namespace"
_TURNS = "turns of namespaces"

TABLES: Mapping[str, Sequence[Row]] = {
    "Namespaces": [
        Row(
            "objects of a kind that are kept",
            f"{shares.SHARE_BYTES >> 20} MiB: {shares.OBJECT_BYTES >> 10} KiB each, "
            f"{shares.SERVICE_BYTES >> 10} KiB more for a Service, "
            f"{shares.PART_BYTES} bytes for each endpoint, port, pair of a selector and address",
            _EACH,
            "a slice 0.9 KiB, an endpoint 0.2 KiB, a Service 6 KiB",
            "what is kept stays; the source's problem names the namespace",
            [
                inputs.EMPTY_SLICES,
                inputs.ENDPOINTS,
                inputs.ADDRESSES,
                inputs.LONG_NAMES,
                inputs.REJECTED,
                inputs.SERVICES,
            ],
        ),
        Row(
            "endpoints and source ranges, for each port, family and side",
            f"{bounds.ENDPOINTS_OF_SERVICE_MAX:,} of a Service, "
            f"{bounds.ENDPOINTS_OF_NAMESPACE_MAX:,} of a namespace",
            _EACH,
            "7 µs of a change, 0.5 KiB, and 0.4 KiB once the page was read",
            f"{_MANY}{_LEFT_OUT}have no endpoints",
            [inputs.PODS, inputs.PORTS],
        ),
        Row(
            "frontends: ports times addresses, and a node port for each family",
            f"{bounds.FRONTENDS_OF_SERVICE_MAX:,} of a Service, "
            f"{bounds.FRONTENDS_OF_NAMESPACE_MAX:,} of a namespace",
            _EACH,
            "0.3 ms, 5 KiB with its port and listener",
            f"{_FRONTENDS}{_LEFT_OUT}aren't served",
            [inputs.FRONTENDS, inputs.SMALL],
        ),
        Row(
            "rules of the kernel path",
            f"{kernel_room.RULES_MAX:,} of a Service, {kernel_room.NODE_RULES_MAX:,} of the node",
            "equal ones of namespaces",
            "50 µs of a change of the Service",
            _USERSPACE,
            [inputs.LARGE_RULES, inputs.SMALL_RULES],
        ),
        Row(
            "elements of the kernel path: endpoints or slots, for each port and address",
            f"{kernel_room.ELEMENTS_MAX:,} of a Service, {kernel_room.NODE_ELEMENTS_MAX:,} of the "
            f"node, and {kernel_room.NODE_EXACT_MAX:,} for exact weights",
            "equal ones of namespaces",
            "7 µs, 0.1 KiB of the kernel, 0.3 KiB while all are compared",
            f"weights become coarse; {_USERSPACE}",
            [inputs.KERNEL],
        ),
        Row(
            "changes to be planned",
            "0.05 s of a round, then a wait as long: at least a ninth of a core",
            _EACH,
            "as computed: a port 0.1 ms, a new one 0.3 ms, an endpoint 10 µs",
            "they wait; what has waited longest is first",
        ),
        Row(
            "ports without a listener",
            "an eighth of all listeners, at least 16",
            "namespaces, then Services",
            "a descriptor of each worker",
            "Event `ServiceNotServed`; ports opened last close, open connections go on",
        ),
        Row(
            "names of endpoints",
            f"{NAMES_MAX} of a Service, {name_shares.NAMESPACE_MAX} of a namespace, "
            f"{name_shares.NODE_MAX:,} of a node",
            _EACH,
            "0.2 ms of an answer",
            "[name-not-allowed](troubleshooting.md#name-not-allowed); the first are looked up",
        ),
        Row(
            "lookups of these names",
            f"{host_queue.SLOTS} at a time, {host_queue.NAMESPACE_MAX} of a namespace",
            _TURNS,
            "up to 5 s of waiting",
            "names with an answer are first",
        ),
        Row(
            "workloads to wake, and to rest",
            "6 attempts a second from zero; to zero one at a time in the cluster",
            _TURNS,
            "a request",
            "fewest attempts first",
        ),
        Row(
            "demand in a node's Lease",
            f"{DEMAND_BYTES_MAX >> 10} KiB, a round's Services {ROUND_BYTES_MAX >> 10} KiB",
            "namespaces, the smallest first",
            "40 bytes, 1 µs",
            "any Service of the namespace counts as used",
        ),
        Row(
            "Kubernetes Events",
            f"{events.NAMESPACE_MAX} of 500 that wait",
            _TURNS,
            "a request",
            "further ones aren't written",
        ),
        Row(
            "probes (`path: auto`, hooks)",
            f"{probe_schedule.PER_SECOND:,} a second, {path_probes.MAX_UNDER_WAY} at a time: "
            "256 of a namespace, 171 of a Service",
            "namespaces, then Services",
            "60 µs",
            "a larger Service's are less frequent",
        ),
        Row(
            "names of Services that questions are compared with",
            f"{COMPARED_MAX:,} characters a question",
            "one question at a time, in a thread",
            "0.1 µs",
            "names beyond aren't suggested",
            [inputs.NAMES],
        ),
    ],
    "Services": [
        Row(
            "endpoints of a Service port and family",
            f"{ENDPOINTS_MAX:,}",
            "each port",
            "7 µs of a change",
            f"{_MANY}ready ones stay",
        ),
        Row(
            "load-balancer IPs, external IPs",
            "100 each",
            "each Service",
            "a frontend for each port",
            "the first are served; of external ones "
            "[external-ip-off](troubleshooting.md#external-ip-off)",
        ),
        Row(
            "`loadBalancerSourceRanges`",
            "1,000",
            "each Service",
            "0.4 KiB in each socket",
            "no client is admitted to load-balancer IPs",
        ),
        Row(
            "source ranges of a socket",
            "1,000 IPv4 networks, or some 450 IPv6 addresses",
            "each Service port",
            "4 instructions of a filter",
            "[not-listening](troubleshooting.md#not-listening): clients are refused",
        ),
        Row(
            "translations at connect()",
            "32,768 frontends of each family and 131,072 slots, 4,096 of a Service port",
            "first come",
            "8 bytes of a slot",
            "rules lead the rest",
        ),
        Row(
            "text of an annotation",
            f"{TEXT_MAX:,} characters",
            "each annotation",
            "a byte",
            "it has no effect; a note",
        ),
        Row(
            "names of zones and nodes in a slice's hints",
            f"{HINTED_MAX:,} of each",
            "each slice",
            "60 bytes",
            "endpoints whose hints have others are for other zones or nodes",
        ),
        Row(
            "message to workers about a Service port",
            f"{MAX_GROUP_BYTES / (1 << 20)} MiB",
            "each Service port",
            "0.2 KiB of an endpoint",
            "[not-listening](troubleshooting.md#not-listening): clients are refused",
        ),
    ],
    "Connections and flows": [
        Row(
            "endpoints dialled for one client",
            "16",
            "each client",
            "0.1 ms, a descriptor",
            "it is reset, or waits (`hold`)",
        ),
        Row(
            "bytes that wait for a reader",
            f"{BUFFER_BYTES >> 10} KiB of a direction, "
            f"or {PIPE_BYTES >> 20} MiB in one of {MAX_PIPES} pipes",
            "each connection",
            "a byte",
            "the other side isn't read until there is room",
        ),
        Row(
            "PROXY header (`--accept-proxy-protocol`)",
            f"107 bytes, version 2 {HEADER_BYTES:,}; {HEADER_S:.0f} s",
            "each connection",
            "a byte",
            "it is reset before an endpoint is dialled",
        ),
        Row(
            "datagrams of a flow that waits",
            "8, of 16 KiB",
            "each flow",
            "2 KiB",
            "further ones are dropped",
        ),
        Row(
            "clients with `source-hash` that are remembered",
            f"{CLIENTS_MAX:,} of a Service port in a worker",
            "each Service port",
            "0.3 KiB",
            "all are forgotten, and get the same endpoints again",
        ),
        Row(
            "clients that are counted by Service",
            f"{EDGES_MAX} of the node, {EDGES_OF_A_PORT} of a Service port",
            "first come",
            "a series of the metric",
            "others are one number; one unseen for an hour makes room",
        ),
        Row(
            "connections of a Service port that wait",
            f"1,000 by default, at most {HOLD_MAX:,}",
            "clients, then networks",
            "a descriptor",
            "the one with the most loses its oldest",
        ),
        Row(
            "clients with `sessionAffinity`",
            f"{MAX_ENTRIES:,} in a worker; [kernel path](paths.md): 262,144, hooks 65,536",
            "first come",
            "0.2 KiB",
            "the longest-unused is forgotten; rules: new ones have none",
        ),
        Row(
            "ejections at hooks",
            "16,384",
            "network namespaces",
            "0.1 KiB",
            "the longest-unused ends",
        ),
        Row(
            "memory of a process",
            "90 % of its limit",
            "clients",
            "16 KiB of a connection, and its buffers",
            "[Size](operate.md#size); leave 100 MiB of room",
        ),
    ],
    "DNS": [
        Row(
            "a query, and its answer",
            f"{QUERY_BYTES_MAX} bytes; 512 to 1,232 over UDP, 64 KiB over TCP",
            "each query",
            "1 ms; over TCP 20 ms",
            "a random part is sent, marked as truncated",
        ),
        Row(
            "TCP connections",
            "128",
            "clients",
            "a descriptor",
            "the longest-idle of the client with the most ends",
        ),
        Row(
            "names elsewhere (`--dns-upstream`)",
            f"{ELSEWHERE_MAX} at a time, as many wait",
            "first come",
            "a datagram",
            "further ones are dropped, and asked again",
        ),
    ],
    "Status server": [
        Row(
            "connections of an address",
            "128; a health check node port 32",
            "each address",
            "a descriptor",
            "the oldest ends",
        ),
        Row(
            "streams of the page and `?watch`, and of connections",
            "16 each",
            "clients",
            "one answer a second for all",
            "the client with the most loses its oldest to one with fewer, else 503",
        ),
        Row(
            "answers",
            "one of a kind at a time; 128 MiB unread",
            "equal requests share one",
            "64 KiB",
            "connections with the oldest are reset",
        ),
        Row(
            "connections that a stream hasn't read",
            f"{RING:,}",
            "each stream",
            "6 µs, 128 of a worker in 0.25 s",
            "the oldest are left out and counted",
        ),
        Row(
            "search of the page and the JSON",
            f"{MAX_LENGTH} characters",
            "each request",
            "a word 15 ms with 10,000 Services",
            "the rest is cut",
        ),
    ],
    "Files": [
        Row(
            "a manifest file",
            f"64 MiB, {DOCUMENTS_MAX:,} documents",
            "each file",
            "20 µs a document",
            "its last valid form stays",
        ),
        Row(
            "the saved state",
            f"{TEXT_BYTES_MAX >> 20} MiB of text, {FILE_BYTES_MAX >> 20} MiB compressed",
            "all Services",
            "10 µs of a Service",
            "it isn't written, and the last file stays",
        ),
    ],
    "API server, workers, other programs": [
        Row(
            "a list of the API server",
            f"{LIST_S:.0f} s, 75 s of silence; {VALUE_BYTES_MAX >> 20} MiB of an object",
            "each list",
            "0.5 ns of a byte",
            "it is made again; what is served stays",
        ),
        Row(
            "changes that wait for a slow worker",
            f"two of a Service port, {MAX_WAITING_BYTES >> 20} MiB",
            "each Service port",
            "0.3 KiB",
            "the worker is started again",
        ),
        Row(
            "log lines that wait",
            "1 MiB of a worker, and of a process",
            "each process",
            "a line",
            "further ones are dropped and counted",
        ),
        Row(
            "processes that ask for the node, or for a worker's sockets",
            f"{SLOTS} at a time, 1,024 wait",
            "processes, two each",
            "two descriptors for 30 ms",
            "the oldest is disconnected",
        ),
        Row(
            "nftables chains of another program",
            f"{CHAINS_MAX} from each that the kernel calls",
            "each program",
            "0.25 ms",
            "rules of further ones aren't found",
        ),
        Row(
            "addresses that `explain --probe` dials",
            f"{DIALLED_MAX}, 32 at a time",
            "each command",
            "up to 3 s",
            "further ones aren't dialled",
        ),
    ],
}
WALKED = [one for rows in TABLES.values() for row in rows for one in row.largest]
"""The largest inputs of all rows."""


def with_bounds(page: str) -> str:
    """Return docs/security.md with a table of the rows: ``make docs``."""
    head = ["what grows", "bound", "share of", "costs", "at the bound"]
    parts = []
    for name, rows in TABLES.items():
        cells = [[row.grows, row.bound, row.share, row.costs, row.at_the_bound] for row in rows]
        parts += [f"### {name}", table(head, cells)]
    return replace_part(page, "\n\n".join(parts))

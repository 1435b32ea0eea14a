"""Defines the constants and settings of the data plane, each with its unit and reason."""

from __future__ import annotations

from dataclasses import dataclass

# The number of bytes per read: small enough to bound the bytes queued for a stalled reader, large
# enough that system calls don't dominate bulk transfers.
BUFFER_BYTES = 256 * 1024

# The number of reads of one direction before other handlers run: 2 MiB, at most a millisecond.
ROUNDS = 8

# The size from which a read counts as bulk data, and splicing costs less than copying (measured;
# for less, the two extra calls cost more than the copies). It is less than a buffer, so that a
# second read follows: see rule 6 in ``relay``.
BULK_BYTES = 64 * 1024

# How many times one direction fills its pipe before other handlers run: up to 4 MiB, about 2 ms.
SPLICE_ROUNDS = 4

# The maximum number of pipes. An unprivileged user may use 64 MiB for all pipes
# (fs.pipe-user-pages-soft), beyond which F_SETPIPE_SZ fails; this is half of that limit, and leaves
# the rest to other processes of the same user.
MAX_PIPES = 32

# The maximum number of turns of one direction before a reset: they move more bytes than the kernel
# buffers per socket, unless tcp_rmem allows more than 16 MiB.
LAST_TURNS = 8

# How many connections a socket accepts, or datagrams it receives, before other handlers run.
BATCH = 64

# How many dials for one datagram of a new UDP flow may fail immediately, as without a route.
DIALS = 8


@dataclass(frozen=True, slots=True)
class Tuning:
    """Settings of the operator or of the embedding program."""

    connect_timeout_s: float = 1.0
    """Seconds of silence after which the next endpoint is tried: the kernel resends a SYN after one
    second, so a shorter time would give up on every lost packet."""
    reset_wait_s: float = 5.0
    """Seconds without progress after which bytes sent before a RST are dropped."""
    tcp_idle_s: float = 86400.0
    """Seconds without a byte in either direction after which a connection is reset; a day, the
    lifetime of conntrack entries under kube-proxy (tcpEstablishedTimeout)."""
    tcp_half_closed_s: float = 3600.0
    """The idle timeout after one side's FIN or RST; an hour, as in kube-proxy
    (tcpCloseWaitTimeout)."""
    udp_idle_s: float | None = None
    """Seconds without a datagram after which a flow ends; None for conntrack's rule: 30 s after one
    exchange, 120 s after several."""
    max_flows: int | None = None
    """The maximum number of UDP flows; None for a quarter of the descriptors, and in all processes
    together no more than half of the node's ephemeral ports: a flow from this node's address uses
    one."""
    processes: int = 1
    """How many processes share the node's ephemeral ports, including this process."""
    max_pipes: int = MAX_PIPES
    """Pipes for bulk data, of 1 MiB and two descriptors each; 0 copies everything."""
    descriptor_limit: int | None = None
    """Descriptors that may be used; None for the process's unused descriptors, less a reserve."""

    connection_log: float = 0.0
    """The share of connections and flows that are logged at their end; 1 means all."""

    proxy_protocol_from: tuple[str, ...] = ()
    """Networks from which TCP connections begin with a PROXY header."""

    @property
    def client_timeout_s(self) -> float:
        """Seconds from the first dial after which a client without an answer is reset, or waits.

        This suffices for three dials. The dial of the last endpoint left to try may take all the
        remaining time, and so survives the loss of one or two SYNs.
        """
        return 3 * self.connect_timeout_s

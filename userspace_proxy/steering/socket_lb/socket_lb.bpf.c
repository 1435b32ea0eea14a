/*
 * Socket-level load balancing: redirects connect() from a frontend to one of its endpoints, before a
 * packet is sent; counts the results of connections; and ejects an endpoint for a while if a dial to
 * it fails (as userspace_proxy/balance/ejection.py does).
 *
 *     connect4, connect6          choose an endpoint, and store the dialled address in the socket
 *     getpeername4, getpeername6  return the dialled address
 *     sock_release                records that the client closed the socket
 *     sockops                     SYN sent ─▶ established, refused, SYN repeated ─▶ ended
 *
 * The control process writes frontends, slots, counters and settings; socket_maps.py defines the same
 * structures. Dials to addresses that aren't in frontends are left to the node's rules.
 *
 * Without CAP_PERFMON, Linux before 6.7 refuses writes of less than 64 bits to the stack where the
 * verifier tracks a value, so every value on the stack is a 64-bit word. Addresses and ports are in
 * network byte order, as in the kernel: an address is two words, and an IPv4 address is the low half
 * of the second word.
 */
#include <linux/bpf.h>
#include <stdbool.h>

#define PART(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define MAP(name, ...) struct map name PART("maps") = {__VA_ARGS__}
#define HELPER(type, name, id, ...) static type (*const name)(__VA_ARGS__) = (void *)BPF_FUNC_##id
#define ADD(counter, amount) __sync_fetch_and_add(&(counter), amount)

HELPER(void *, lookup, map_lookup_elem, void *map, const void *key);
HELPER(long, update, map_update_elem, void *map, const void *key, const void *value, __u64 flags);
HELPER(long, delete, map_delete_elem, void *map, const void *key);
HELPER(void *, kept_of, sk_storage_get, void *map, void *sk, void *value, __u64 flags);
HELPER(long, ask_for, sock_ops_cb_flags_set, struct bpf_sock_ops *ops, int flags);
HELPER(long, send, ringbuf_output, void *ring, void *data, __u64 bytes, __u64 flags);
HELPER(__u64, netns_of, get_netns_cookie, void *context);
HELPER(__u64, now_ns, ktime_get_ns, void);
HELPER(__u32, random, get_prandom_u32, void);

enum { STREAM = 1, TCP = 6, INET = 2 };
#define MAPPED 0xffff0000U /* The third of four words of ::ffff:0:0/96. */
#define PINNED 0x80000000U /* A flag in a slot's key: the other bits are an endpoint's number. */
#define SECOND_NS 1000000000ULL
enum { FIRST_S = 5, LONGEST_S = 60, PROBE_S = 3, RANDOM_TRIES = 4, TRIES = 12 };
enum { REPORTS = 64 }; /* The failed dials that a network namespace may report in a second. */

enum kind { PROBED, REFUSED, UNANSWERED, RETURNED, CONNECTION }; /* For ejections and events. */
enum state { NOT_FOLLOWED, TRANSLATED, DIALLED, REPEATED, ESTABLISHED };
enum result { WAS_REFUSED = 1, WAS_UNANSWERED, WAS_GIVEN_UP, WAS_SERVED };

struct address { __u64 high, low, port; };
struct service { __u32 number, slots, affinity, timeout_s; };
struct endpoint { struct address at; __u64 number; };
struct pin { __u64 endpoint, last_ns; };
struct client { __u64 netns, affinity; };
/* The clients for which an endpoint is ejected: those in a network namespace; 0: all clients. */
struct scope { __u64 endpoint, netns; };
struct ejection { __u64 until_ns, times, kind; };
struct counts {
	__u64 established, refused, unanswered, given_up, ended;
	__u64 received, sent, retransmitted, srtt_us, latency_ns, lost, buckets[12];
};
struct connection {
	struct address dialled;
	__u64 endpoint, netns, state, since_ns, waited_ns, received, is_closed;
};
/* Once the term has expired, no process maintains the maps, and all dials are left to the rules. */
struct settings { __u64 host_only, host_netns, observing, next_number, valid_until_ns; };
struct event {
	__u64 kind, endpoint, at_ns, ns; /* ns is the connection's duration. */
	struct address client, dialled;
	__u64 waited_ns, received, sent, result, tcp_state;
};

/* The same fields as MapSpec in objects.py. */
struct map { __u32 type, key_bytes, value_bytes, entries, flags; };
MAP(frontends4, BPF_MAP_TYPE_HASH, 8, sizeof(struct service), 65536, BPF_F_NO_PREALLOC);
MAP(frontends6, BPF_MAP_TYPE_HASH, sizeof(struct address), sizeof(struct service), 65536,
    BPF_F_NO_PREALLOC);
MAP(slots, BPF_MAP_TYPE_HASH, 8, sizeof(struct endpoint), 262144, BPF_F_NO_PREALLOC);
MAP(counters, BPF_MAP_TYPE_HASH, 8, sizeof(struct counts), 131072, BPF_F_NO_PREALLOC);
MAP(ejected, BPF_MAP_TYPE_LRU_HASH, sizeof(struct scope), sizeof(struct ejection), 16384, 0);
MAP(pins, BPF_MAP_TYPE_LRU_HASH, sizeof(struct client), sizeof(struct pin), 65536, 0);
MAP(connections, BPF_MAP_TYPE_SK_STORAGE, 4, sizeof(struct connection), 0, BPF_F_NO_PREALLOC);
MAP(settings, BPF_MAP_TYPE_ARRAY, 4, sizeof(struct settings), 1, 0);
MAP(events, BPF_MAP_TYPE_RINGBUF, 0, 0, 262144, 0);

INLINE __u64 out_until(struct scope *scope)
{
	struct ejection *ejection = lookup(&ejected, scope);
	return ejection ? ejection->until_ns : 0;
}

INLINE void begin_probe(struct scope *scope, __u64 now)
{
	struct ejection *ejection = lookup(&ejected, scope);
	if (!ejection)
		return;
	ejection->kind = PROBED;
	ejection->until_ns = now + PROBE_S * SECOND_NS;
}

/* Returns whether a client may dial an endpoint; after an ejection, this dial becomes a probe. */
INLINE bool may_dial(__u64 number, __u64 netns)
{
	struct scope all = {number, 0}, own = {number, netns};
	__u64 all_until = out_until(&all), own_until = out_until(&own);
	if (!(all_until | own_until))
		return true;
	__u64 now = now_ns();
	if (now < all_until || now < own_until)
		return false;
	if (all_until)
		begin_probe(&all, now);
	if (own_until)
		begin_probe(&own, now);
	return true;
}

/* Returns the key of a slot; if all endpoints that it tries are ejected, the key of the first. */
INLINE __u64 any_slot(__u64 base, __u64 count, __u64 netns)
{
	__u64 first = base | random() % count, key = first;
#pragma unroll
	for (int tries = 1; tries <= TRIES; tries++) {
		struct endpoint *endpoint = lookup(&slots, &key);
		if (endpoint && may_dial(endpoint->number, netns))
			return key;
		key = base | (tries < RANDOM_TRIES ? random() : key - base + 1) % count;
	}
	return first;
}

/* Returns whether a client has a pin to an endpoint that it may dial. */
INLINE bool pinned(struct client *client, __u64 base, __u64 timeout_s, struct endpoint *found)
{
	struct pin *pin = lookup(&pins, client);
	if (!pin)
		return false;
	__u64 now = now_ns(), key = base | PINNED | pin->endpoint;
	if (now >= pin->last_ns + timeout_s * SECOND_NS)
		return false;
	struct endpoint *endpoint = lookup(&slots, &key);
	if (!endpoint || !may_dial(endpoint->number, client->netns))
		return false;
	*found = *endpoint;
	pin->last_ns = now;
	return true;
}

/* Chooses the endpoint for a dial; returns false if the dial is left to the rules. */
INLINE bool choose(struct service *service, __u64 netns, struct endpoint *found)
{
	__u64 base = (__u64)service->number << 32, count = service->slots, only = 0;
	__u64 affinity = service->affinity, timeout_s = service->timeout_s;
	struct client client = {netns, affinity};
	struct settings *set = lookup(&settings, &only);
	if (!count || !set || set->valid_until_ns < now_ns())
		return false;
	if (set->host_only && netns != (set->host_netns ? set->host_netns : netns_of(0)))
		return false;
	if (affinity && pinned(&client, base, timeout_s, found))
		return true;
	__u64 key = any_slot(base, count, netns);
	struct endpoint *endpoint = lookup(&slots, &key);
	if (!endpoint)
		return false;
	*found = *endpoint;
	if (affinity) {
		struct pin pin = {found->number, now_ns()};
		update(&pins, &client, &pin, BPF_ANY);
	}
	return true;
}

/*
 * Replaces the dialled address with an endpoint's, and stores the former; false if it is unchanged.
 * The result isn't a pointer: where Linux 5.10 mistrusts branches, it refuses a second look at one.
 */
INLINE bool lead(struct bpf_sock_addr *dial, struct service *service, struct address *to)
{
	__u64 netns = netns_of(dial);
	struct endpoint found = {};
	bool is_ours = service && choose(service, netns, &found);
	__u64 create = is_ours ? BPF_SK_STORAGE_GET_F_CREATE : 0;
	struct connection *kept = kept_of(&connections, dial->sk, 0, create);
	if (!kept)
		return false;
	/* The socket may have dialled a frontend before, and been disconnected. */
	kept->state = NOT_FOLLOWED;
	if (!is_ours)
		return false;
	kept->dialled = *to;
	kept->endpoint = found.number;
	kept->netns = netns;
	kept->state = TRANSLATED;
	*to = found.at;
	return true;
}

PART("cgroup/connect4") int connect4(struct bpf_sock_addr *dial)
{
	if (dial->type != STREAM || dial->protocol != TCP)
		return 1;
	struct address to = {0, dial->user_ip4, dial->user_port};
	__u64 key = to.port << 32 | to.low;
	if (lead(dial, lookup(&frontends4, &key), &to)) {
		dial->user_ip4 = to.low;
		dial->user_port = to.port;
	}
	return 1;
}

PART("cgroup/connect6") int connect6(struct bpf_sock_addr *dial)
{
	if (dial->type != STREAM || dial->protocol != TCP)
		return 1;
	__u64 *ip = (void *)dial->user_ip6;
	struct address to = {ip[0], ip[1], dial->user_port};
	__u64 key = to.port << 32 | to.low >> 32;
	bool is_mapped = !to.high && (__u32)to.low == MAPPED;
	void *service = is_mapped ? lookup(&frontends4, &key) : lookup(&frontends6, &to);
	if (lead(dial, service, &to)) {
		ip[0] = to.high;
		ip[1] = is_mapped ? to.low << 32 | MAPPED : to.low;
		dial->user_port = to.port;
	}
	return 1;
}

PART("cgroup/getpeername4") int getpeername4(struct bpf_sock_addr *peer)
{
	struct connection *kept = kept_of(&connections, peer->sk, 0, 0);
	if (kept && kept->state) {
		peer->user_ip4 = kept->dialled.low;
		peer->user_port = kept->dialled.port;
	}
	return 1;
}

PART("cgroup/getpeername6") int getpeername6(struct bpf_sock_addr *peer)
{
	struct connection *kept = kept_of(&connections, peer->sk, 0, 0);
	if (kept && kept->state) {
		__u64 *ip = (void *)peer->user_ip6;
		ip[0] = kept->dialled.high;
		ip[1] = kept->dialled.low;
		peer->user_port = kept->dialled.port;
	}
	return 1;
}

/*
 * A client that closes its socket before an answer arrives is no failure. Without this program, that
 * would look like an ICMP error, as a disconnection (AF_UNSPEC, shutdown) before an answer does.
 */
PART("cgroup/sock_release") int sock_release(struct bpf_sock *sk)
{
	struct connection *kept = sk->type == STREAM ? kept_of(&connections, sk, 0, 0) : 0;
	if (kept)
		kept->is_closed = 1;
	return 1;
}

/* Sends an event; returns whether the ring had room. */
INLINE bool report(struct bpf_sock_ops *ops, struct connection *kept, struct event *event)
{
	/* In this context, two 32-bit words must not be read as one 64-bit word. */
	volatile __u32 *ip = ops->local_ip6;
	event->endpoint = kept->endpoint;
	event->dialled = kept->dialled;
	event->client.port = __builtin_bswap16(ops->local_port);
	if (ops->family == INET) {
		event->client.low = ops->local_ip4;
	} else {
		event->client.high = (__u64)ip[1] << 32 | ip[0];
		event->client.low = (__u64)ip[3] << 32 | ip[2];
	}
	return !send(&events, event, sizeof *event, 0);
}

/* Returns whether a network namespace may report another failed dial; no endpoint has number 0. */
INLINE bool may_report(__u64 netns, __u64 now)
{
	struct scope key = {0, netns};
	struct ejection begun = {now + SECOND_NS, 1}, *reports = lookup(&ejected, &key);
	if (!reports || now >= reports->until_ns)
		return !update(&ejected, &key, &begun, BPF_ANY);
	if (reports->times >= REPORTS)
		return false;
	ADD(reports->times, 1);
	return true;
}

/*
 * Ejects an endpoint after a failed dial, for longer if that was a probe. This affects only clients
 * in one network namespace, because any program can make its own dials fail. The control process
 * determines whether the endpoint fails for all clients.
 */
INLINE void eject(struct bpf_sock_ops *ops, struct connection *kept, __u64 kind, __u64 now)
{
	struct scope all = {kept->endpoint, 0}, own = {kept->endpoint, kept->netns};
	struct ejection begun = {now + FIRST_S * SECOND_NS, 1, kind};
	struct ejection *known = lookup(&ejected, &all);
	if (known && known->kind != PROBED && now < known->until_ns)
		return;
	known = lookup(&ejected, &own);
	if (!known) {
		if (update(&ejected, &own, &begun, BPF_NOEXIST))
			return;
	} else {
		__u64 times = known->times;
		if (known->kind != PROBED && now < known->until_ns)
			return;
		known->times = times + 1;
		known->kind = kind;
		known->until_ns = now + (times < 4 ? FIRST_S << times : LONGEST_S) * SECOND_NS;
	}
	struct event event = {.kind = kind, .at_ns = now};
	if (may_report(own.netns, now))
		report(ops, kept, &event);
}

/* An answer ends the endpoint's ejections: for the client's network namespace, and for all. */
INLINE void readmit(struct bpf_sock_ops *ops, struct connection *kept, __u64 now)
{
	struct scope all = {kept->endpoint, 0}, own = {kept->endpoint, kept->netns};
	if (lookup(&ejected, &own))
		delete(&ejected, &own);
	if (!lookup(&ejected, &all) || delete(&ejected, &all))
		return;
	struct event event = {.kind = RETURNED, .at_ns = now};
	report(ops, kept, &event);
}

/*
 * The bounds are TIMES_BOUNDS_S of facts/histogram.py. The empty instruction keeps the additions
 * separate: without CAP_PERFMON, the offset of an addition must not depend on the branch.
 */
#define UP_TO(limit_us, bucket) \
	if (us <= limit_us) { \
		ADD(counts->buckets[bucket], 1); \
		asm volatile("" ::"i"(bucket)); \
		return; \
	}
INLINE void add_latency(struct counts *counts, __u64 ns)
{
	__u64 us = (ns + 999) / 1000;
	ADD(counts->latency_ns, ns);
	UP_TO(1000, 0) UP_TO(2500, 1) UP_TO(5000, 2) UP_TO(10000, 3) UP_TO(25000, 4) UP_TO(50000, 5)
	UP_TO(100000, 6) UP_TO(250000, 7) UP_TO(1000000, 8) UP_TO(3000000, 9) UP_TO(10000000, 10)
	ADD(counts->buckets[11], 1);
}

/*
 * TCP counts the SYN and each FIN as a byte. The last state shows which FINs were exchanged; after
 * FIN_WAIT2, where the kernel may not wait for the endpoint's FIN, later bytes show whether it came.
 */
INLINE void count_bytes(struct bpf_sock_ops *ops, struct connection *kept, struct event *event)
{
	__u64 was = ops->args[0], received = ops->bytes_received, sent = ops->bytes_acked;
	bool both = was == BPF_TCP_CLOSING || was == BPF_TCP_LAST_ACK, half = was == BPF_TCP_FIN_WAIT2;
	__u64 ours = 1 + (both || half);
	__u64 theirs = both || was == BPF_TCP_CLOSE_WAIT || (half && received != kept->received);
	event->received = received - (received ? theirs : 0);
	event->sent = sent > ours ? sent - ours : 0;
	event->tcp_state = was;
}

INLINE void ended(struct bpf_sock_ops *ops, struct connection *kept, struct counts *counts)
{
	__u64 now = now_ns(), state = kept->state, only = 0;
	struct event event = {.kind = CONNECTION, .at_ns = now, .ns = now - kept->since_ns};
	event.waited_ns = event.ns;
	event.tcp_state = BPF_TCP_SYN_SENT;
	if (state == ESTABLISHED) {
		event.result = WAS_SERVED;
		event.waited_ns = kept->waited_ns;
		count_bytes(ops, kept, &event);
		ADD(counts->ended, 1);
		ADD(counts->received, event.received);
		ADD(counts->sent, event.sent);
		ADD(counts->retransmitted, ops->total_retrans);
		ADD(counts->srtt_us, ops->srtt_us >> 3);
	} else if (state == REPEATED) {
		event.result = WAS_UNANSWERED;
	} else if (kept->is_closed) {
		event.result = WAS_GIVEN_UP;
		ADD(counts->given_up, 1);
	} else {
		event.result = WAS_REFUSED;
		ADD(counts->refused, 1);
		eject(ops, kept, REFUSED, now);
	}
	kept->state = NOT_FOLLOWED;
	struct settings *set = lookup(&settings, &only);
	if (set && set->observing && !report(ops, kept, &event))
		ADD(counts->lost, 1);
}

PART("sockops") int followed(struct bpf_sock_ops *ops)
{
	__u32 op = ops->op, becomes = op == BPF_SOCK_OPS_STATE_CB ? ops->args[1] : 0;
	if (op != BPF_SOCK_OPS_TCP_CONNECT_CB && op != BPF_SOCK_OPS_RTO_CB &&
	    becomes != BPF_TCP_ESTABLISHED && becomes != BPF_TCP_FIN_WAIT2 && becomes != BPF_TCP_CLOSE)
		return 1;
	struct bpf_sock *sk = ops->sk;
	struct connection *kept = sk ? kept_of(&connections, sk, 0, 0) : 0;
	if (!kept || !kept->state)
		return 1;
	__u64 state = kept->state, number = kept->endpoint;
	if (op == BPF_SOCK_OPS_TCP_CONNECT_CB) {
		kept->state = DIALLED;
		kept->since_ns = now_ns();
		/* Keep the callbacks that other programs have requested. */
		ask_for(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_RTO_CB_FLAG |
				     BPF_SOCK_OPS_STATE_CB_FLAG);
		return 1;
	}
	if (becomes == BPF_TCP_FIN_WAIT2)
		kept->received = ops->bytes_received;
	/* Without counters, the control process no longer knows the endpoint. */
	struct counts *counts = lookup(&counters, &number);
	if (!counts || state == TRANSLATED)
		return 1;
	if (becomes == BPF_TCP_CLOSE) {
		ended(ops, kept, counts);
	} else if (becomes == BPF_TCP_ESTABLISHED) {
		__u64 now = now_ns();
		kept->state = ESTABLISHED;
		kept->waited_ns = now - kept->since_ns;
		ADD(counts->established, 1);
		add_latency(counts, kept->waited_ns);
		readmit(ops, kept, now);
	} else if (op == BPF_SOCK_OPS_RTO_CB && state == DIALLED) {
		/* The endpoint hasn't answered yet, but still may. */
		kept->state = REPEATED;
		ADD(counts->unanswered, 1);
		eject(ops, kept, UNANSWERED, now_ns());
	}
	return 1;
}

char _license[] PART("license") = "GPL";

/*
 * Socket-level load balancing: connect() to a frontend becomes connect() to one of its endpoints,
 * before there is a packet; what becomes of the connection is counted, and an endpoint that fails a
 * dial is left out for a while (as userspace_proxy/balance/ejection.py does it).
 *
 *     connect4, connect6          choose an endpoint, and keep in the socket what was dialled
 *     getpeername4, getpeername6  say what was dialled
 *     sock_release                notes that the client closes the socket
 *     sockops                     SYN sent ─▶ established, refused, SYN repeated ─▶ ended
 *
 * The control process writes frontends, slots, counters and settings; socket_maps.py has the same
 * structures. What isn't in frontends is left to the rules of the node.
 *
 * Without CAP_PERFMON, Linux before 6.7 refuses writes of less than 64 bits to the stack where it
 * remembers a value. So whatever is on the stack here is a 64-bit word. Addresses and ports are as
 * the kernel has them, in network order: an address is two words, and one of IPv4 is the low half
 * of the second.
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

#define STREAM 1
#define TCP 6
#define INET 2
#define MAPPED 0xffff0000U /* The third of four words of ::ffff:0:0/96. */
#define SECOND_NS 1000000000ULL
#define FIRST_S 5
#define LONGEST_S 60
#define PROBE_NS (3 * SECOND_NS)
#define PINNED 0x80000000ULL /* Part of a slot's key: the rest is an endpoint's number. */
#define RANDOM_TRIES 4
#define TRIES 12

enum kind { PROBED, REFUSED, UNANSWERED, RETURNED, CONNECTION }; /* Of ejections, and events. */
enum state { NOT_FOLLOWED, TRANSLATED, DIALLED, REPEATED, ESTABLISHED };
enum result { WAS_REFUSED = 1, WAS_UNANSWERED, WAS_GIVEN_UP, WAS_SERVED };

struct address { __u64 high, low, port; };
struct service { __u32 number, slots, affinity, timeout_s; };
struct endpoint { struct address at; __u64 number; };
struct pin { __u64 endpoint, last_ns; };
struct client { __u64 netns, affinity; };
/* A namespace other than 0 is the only one whose clients leave the endpoint out. */
struct ejection { __u64 until_ns, times, kind, netns; };
struct counts {
	__u64 established, refused, unanswered, given_up, ended;
	__u64 received, sent, retransmitted, srtt_us, latency_ns, buckets[12];
};
struct connection {
	struct address dialled;
	__u64 endpoint, netns, state, since_ns, waited_ns, is_closed;
};
struct settings { __u64 host_only, host_netns, observing, next_number; };
struct event {
	__u64 kind, endpoint, at_ns, ns; /* When an ejection is due, or how long a connection took. */
	struct address client, dialled;
	__u64 waited_ns, received, sent, result, tcp_state;
};

/* As MapSpec of objects.py. */
struct map { __u32 type, key_bytes, value_bytes, entries, flags; };
MAP(frontends4, BPF_MAP_TYPE_HASH, 8, sizeof(struct service), 65536, BPF_F_NO_PREALLOC);
MAP(frontends6, BPF_MAP_TYPE_HASH, sizeof(struct address), sizeof(struct service), 65536, BPF_F_NO_PREALLOC);
MAP(slots, BPF_MAP_TYPE_HASH, 8, sizeof(struct endpoint), 262144, BPF_F_NO_PREALLOC);
MAP(counters, BPF_MAP_TYPE_HASH, 8, sizeof(struct counts), 131072, BPF_F_NO_PREALLOC);
MAP(ejected, BPF_MAP_TYPE_HASH, 8, sizeof(struct ejection), 16384, BPF_F_NO_PREALLOC);
MAP(pins, BPF_MAP_TYPE_LRU_HASH, sizeof(struct client), sizeof(struct pin), 65536, 0);
MAP(connections, BPF_MAP_TYPE_SK_STORAGE, 4, sizeof(struct connection), 0, BPF_F_NO_PREALLOC);
MAP(settings, BPF_MAP_TYPE_ARRAY, 4, sizeof(struct settings), 1, 0);
MAP(events, BPF_MAP_TYPE_RINGBUF, 0, 0, 262144, 0);

INLINE struct settings *settings_now(void)
{
	__u64 only = 0;
	return lookup(&settings, &only);
}

/* Whether a client may dial an endpoint; if it was ejected until now, this dial is its probe. */
INLINE bool may_dial(__u64 number, __u64 netns)
{
	struct ejection *ejection = lookup(&ejected, &number);
	if (!ejection || (ejection->netns && ejection->netns != netns))
		return true;
	__u64 now = now_ns();
	if (now < ejection->until_ns)
		return false;
	ejection->kind = PROBED;
	ejection->until_ns = now + PROBE_NS;
	return true;
}

/* Returns the key of a slot. If all that are tried are ejected, the first one: never none. */
INLINE __u64 any_slot(__u64 base, __u64 count, __u64 netns)
{
	__u64 first = base | random() % count, key = first;
#pragma unroll
	for (int tries = 1; tries <= TRIES; tries++) {
		struct endpoint *endpoint = lookup(&slots, &key);
		if (endpoint && may_dial(endpoint->number, netns))
			return key;
		__u64 next = (key - base + 1) % count;
		key = base | (tries < RANDOM_TRIES ? random() % count : next);
	}
	return first;
}

/* Returns the slot of a client's pin, or NULL: none, too old, gone, or ejected. */
INLINE struct endpoint *pinned(struct client *client, __u64 base, __u64 timeout_s)
{
	struct pin *pin = lookup(&pins, client);
	if (!pin)
		return 0;
	__u64 now = now_ns(), key = base | PINNED | pin->endpoint;
	/* A later time is another processor's. */
	if (now > pin->last_ns && now - pin->last_ns >= timeout_s * SECOND_NS)
		return 0;
	struct endpoint *endpoint = lookup(&slots, &key);
	if (!endpoint || !may_dial(endpoint->number, client->netns))
		return 0;
	pin->last_ns = now;
	return endpoint;
}

/* Returns an endpoint, or NULL if the dial is left to the rules. */
INLINE struct endpoint *choose(struct service *service, __u64 netns)
{
	__u64 base = (__u64)service->number << 32, count = service->slots;
	__u64 affinity = service->affinity, timeout_s = service->timeout_s;
	struct client client = {netns, affinity};
	struct settings *now = settings_now();
	if (!count || !now)
		return 0;
	if (now->host_only && netns != (now->host_netns ? now->host_netns : netns_of(0)))
		return 0;
	struct endpoint *endpoint = affinity ? pinned(&client, base, timeout_s) : 0;
	if (endpoint)
		return endpoint;
	__u64 key = any_slot(base, count, netns);
	endpoint = lookup(&slots, &key);
	if (!endpoint || !affinity)
		return endpoint;
	struct pin pin = {endpoint->number, now_ns()};
	update(&pins, &client, &pin, BPF_ANY);
	return endpoint;
}

/* Keeps what is dialled; false if there is no memory for it. */
INLINE bool keep(struct bpf_sock_addr *dial, __u64 high, __u64 low, __u64 number, __u64 netns)
{
	struct connection *kept = kept_of(&connections, dial->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!kept)
		return false;
	kept->dialled.high = high;
	kept->dialled.low = low;
	kept->dialled.port = dial->user_port;
	kept->endpoint = number;
	kept->netns = netns;
	kept->is_closed = 0;
	kept->state = TRANSLATED;
	return true;
}

/* A socket that has dialled a frontend may be disconnected, and dial something else. */
INLINE int left_alone(struct bpf_sock_addr *dial)
{
	struct connection *kept = kept_of(&connections, dial->sk, 0, 0);
	if (kept)
		kept->state = NOT_FOLLOWED;
	return 1;
}

INLINE bool is_tcp(struct bpf_sock_addr *dial)
{
	return dial->type == STREAM && dial->protocol == TCP;
}

PART("cgroup/connect4") int connect4(struct bpf_sock_addr *dial)
{
	if (!is_tcp(dial))
		return 1;
	__u64 low = dial->user_ip4, key = (__u64)dial->user_port << 32 | low, netns = netns_of(dial);
	struct service *service = lookup(&frontends4, &key);
	struct endpoint *endpoint = service ? choose(service, netns) : 0;
	if (!endpoint || !keep(dial, 0, low, endpoint->number, netns))
		return left_alone(dial);
	dial->user_ip4 = endpoint->at.low;
	dial->user_port = endpoint->at.port;
	return 1;
}

PART("cgroup/connect6") int connect6(struct bpf_sock_addr *dial)
{
	if (!is_tcp(dial))
		return 1;
	__u64 high = (__u64)dial->user_ip6[1] << 32 | dial->user_ip6[0];
	__u64 low = (__u64)dial->user_ip6[3] << 32 | dial->user_ip6[2], netns = netns_of(dial);
	bool is_mapped = !high && (__u32)low == MAPPED;
	struct address dialled = {high, low, dial->user_port};
	__u64 key4 = dialled.port << 32 | low >> 32;
	struct service *service = is_mapped ? lookup(&frontends4, &key4) : lookup(&frontends6, &dialled);
	struct endpoint *endpoint = service ? choose(service, netns) : 0;
	if (!endpoint || !keep(dial, high, low, endpoint->number, netns))
		return left_alone(dial);
	dial->user_port = endpoint->at.port;
	if (is_mapped) {
		dial->user_ip6[3] = endpoint->at.low;
		return 1;
	}
	dial->user_ip6[0] = endpoint->at.high;
	dial->user_ip6[1] = endpoint->at.high >> 32;
	dial->user_ip6[2] = endpoint->at.low;
	dial->user_ip6[3] = endpoint->at.low >> 32;
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
		peer->user_ip6[0] = kept->dialled.high;
		peer->user_ip6[1] = kept->dialled.high >> 32;
		peer->user_ip6[2] = kept->dialled.low;
		peer->user_ip6[3] = kept->dialled.low >> 32;
		peer->user_port = kept->dialled.port;
	}
	return 1;
}

PART("cgroup/sock_release") int sock_release(struct bpf_sock *sk)
{
	if (sk->type != STREAM)
		return 1;
	struct connection *kept = kept_of(&connections, sk, 0, 0);
	if (kept)
		kept->is_closed = 1;
	return 1;
}

INLINE void report(struct bpf_sock_ops *ops, struct connection *kept, struct event *event)
{
	event->endpoint = kept->endpoint;
	event->dialled.high = kept->dialled.high;
	event->dialled.low = kept->dialled.low;
	event->dialled.port = kept->dialled.port;
	event->client.port = __builtin_bswap16(ops->local_port);
	if (ops->family == INET) {
		event->client.low = ops->local_ip4;
	} else {
		/* Not as words of 64 bits, which this context may not be read by. */
		volatile __u32 *ip = ops->local_ip6;
		event->client.high = (__u64)ip[1] << 32 | ip[0];
		event->client.low = (__u64)ip[3] << 32 | ip[2];
	}
	send(&events, event, sizeof *event, 0);
}

/*
 * Ejects an endpoint after a failed dial; for longer, if that was a probe. What one network
 * namespace finds holds for it alone, for its own firewall or a NetworkPolicy may be the cause:
 * for all it does once a second one finds the same.
 */
INLINE void eject(struct bpf_sock_ops *ops, struct connection *kept, __u64 kind, __u64 now)
{
	__u64 number = kept->endpoint, netns = kept->netns, until = now + FIRST_S * SECOND_NS;
	struct ejection *known = lookup(&ejected, &number);
	if (!known) {
		struct ejection begun = {until, 1, kind, netns};
		if (update(&ejected, &number, &begun, BPF_NOEXIST))
			return;
	} else if (known->netns && known->netns != netns) {
		known->netns = 0;
		known->times = 1;
		known->kind = kind;
		known->until_ns = until;
	} else if (known->kind == PROBED || now >= known->until_ns) {
		__u64 times = known->times, lasts_s = times < 4 ? FIRST_S << times : LONGEST_S;
		until = now + lasts_s * SECOND_NS;
		known->times = times + 1;
		known->kind = kind;
		known->until_ns = until;
	} else {
		return;
	}
	struct event event = {.kind = kind, .at_ns = now, .ns = until};
	report(ops, kept, &event);
}

INLINE void readmit(struct bpf_sock_ops *ops, struct connection *kept, __u64 now)
{
	__u64 number = kept->endpoint;
	struct ejection *known = lookup(&ejected, &number);
	if (!known || (known->netns && known->netns != kept->netns) || delete(&ejected, &number))
		return;
	struct event event = {.kind = RETURNED, .at_ns = now};
	report(ops, kept, &event);
}

/*
 * Bounds as TIMES_BOUNDS_S of facts/histogram.py. The empty instruction keeps the branches apart:
 * of one addition at a variable offset the verifier wants more than CAP_BPF.
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

INLINE void established(struct bpf_sock_ops *ops, struct connection *kept, struct counts *counts)
{
	__u64 now = now_ns(), waited = now - kept->since_ns;
	kept->state = ESTABLISHED;
	kept->waited_ns = waited;
	ADD(counts->established, 1);
	add_latency(counts, waited);
	readmit(ops, kept, now);
}

/* The SYN is repeated: the endpoint is silent. It may still answer. */
INLINE void repeated(struct bpf_sock_ops *ops, struct connection *kept, struct counts *counts)
{
	kept->state = REPEATED;
	ADD(counts->unanswered, 1);
	eject(ops, kept, UNANSWERED, now_ns());
}

/*
 * After a reset or a time-out no packet is on its way. An ICMP error leaves the SYN there before
 * Linux 6.11, as does close(), which sock_release tells.
 */
INLINE __u64 failed(struct bpf_sock_ops *ops, struct connection *kept, struct counts *counts, __u64 now)
{
	if (kept->state == REPEATED)
		return WAS_UNANSWERED;
	if (ops->packets_out && kept->is_closed) {
		ADD(counts->given_up, 1);
		return WAS_GIVEN_UP;
	}
	ADD(counts->refused, 1);
	eject(ops, kept, REFUSED, now);
	return WAS_REFUSED;
}

/* TCP counts SYN and FIN as bytes. The last state says which FINs there were. */
INLINE void ended(struct bpf_sock_ops *ops, struct connection *kept, struct counts *counts)
{
	__u64 was = ops->args[0], now = now_ns(), state = kept->state, result = WAS_SERVED;
	__u64 received = 0, sent = 0;
	kept->state = NOT_FOLLOWED;
	if (state == ESTABLISHED) {
		bool is_acked = was == BPF_TCP_FIN_WAIT2 || was == BPF_TCP_CLOSING || was == BPF_TCP_LAST_ACK;
		bool has_fin = was == BPF_TCP_CLOSE_WAIT || was == BPF_TCP_CLOSING || was == BPF_TCP_LAST_ACK ||
			       (was == BPF_TCP_FIN_WAIT2 && !kept->is_closed);
		sent = ops->bytes_acked;
		sent -= sent > is_acked ? is_acked + 1 : sent;
		received = ops->bytes_received;
		received -= received ? has_fin : 0;
		ADD(counts->ended, 1);
		ADD(counts->received, received);
		ADD(counts->sent, sent);
		ADD(counts->retransmitted, ops->total_retrans);
		ADD(counts->srtt_us, ops->srtt_us >> 3);
	} else {
		kept->state = state;
		result = failed(ops, kept, counts, now);
		kept->state = NOT_FOLLOWED;
	}
	struct settings *settings = settings_now();
	if (!settings || !settings->observing)
		return;
	struct event event = {.kind = CONNECTION, .at_ns = now, .ns = now - kept->since_ns};
	event.waited_ns = state == ESTABLISHED ? kept->waited_ns : event.ns;
	event.received = received;
	event.sent = sent;
	event.result = result;
	event.tcp_state = was;
	report(ops, kept, &event);
}

PART("sockops") int followed(struct bpf_sock_ops *ops)
{
	__u32 op = ops->op;
	if (op != BPF_SOCK_OPS_TCP_CONNECT_CB && op != BPF_SOCK_OPS_RTO_CB && op != BPF_SOCK_OPS_STATE_CB)
		return 1;
	__u32 is_now = ops->args[1];
	if (op == BPF_SOCK_OPS_STATE_CB && is_now != BPF_TCP_ESTABLISHED && is_now != BPF_TCP_CLOSE)
		return 1;
	struct bpf_sock *sk = ops->sk;
	struct connection *kept = sk ? kept_of(&connections, sk, 0, 0) : 0;
	if (!kept || !kept->endpoint)
		return 1;
	__u64 state = kept->state, number = kept->endpoint;
	if (op == BPF_SOCK_OPS_TCP_CONNECT_CB && state == TRANSLATED) {
		kept->state = DIALLED;
		kept->since_ns = now_ns();
		ask_for(ops, BPF_SOCK_OPS_RTO_CB_FLAG | BPF_SOCK_OPS_STATE_CB_FLAG);
		return 1;
	}
	/* Without counters the control process doesn't know the endpoint any more. */
	struct counts *counts = lookup(&counters, &number);
	if (!counts)
		return 1;
	if (op == BPF_SOCK_OPS_RTO_CB && state == DIALLED)
		repeated(ops, kept, counts);
	else if (op == BPF_SOCK_OPS_STATE_CB && is_now == BPF_TCP_ESTABLISHED && state < ESTABLISHED && state >= DIALLED)
		established(ops, kept, counts);
	else if (op == BPF_SOCK_OPS_STATE_CB && is_now == BPF_TCP_CLOSE && state >= DIALLED)
		ended(ops, kept, counts);
	return 1;
}

char _license[] PART("license") = "GPL";

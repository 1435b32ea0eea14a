/*
 * Programs for tests of the loader: connect() to one address leads to another, getpeername() says
 * the first one, and of each such connection is counted that it was established or refused, and how
 * often its round-trip time was measured.
 *
 * Without CAP_PERFMON, Linux before 6.7 refuses writes of less than 64 bits to the stack where it
 * remembers a value. So whatever is on the stack here is a 64-bit word.
 */
#include <linux/bpf.h>

#define PART(name) __attribute__((section(name), used))
#define MAP(name, ...) struct map name PART("maps") = {__VA_ARGS__}
#define HELPER(type, name, id, ...) static type (*const name)(__VA_ARGS__) = (void *)BPF_FUNC_##id

HELPER(void *, lookup, map_lookup_elem, void *map, const void *key);
HELPER(void *, kept_of, sk_storage_get, void *map, void *sk, void *value, __u64 flags);
HELPER(long, ask_for, sock_ops_cb_flags_set, struct bpf_sock_ops *ops, int flags);

/* As MapSpec of userspace_proxy/kernel/bpf/objects.py. */
struct map { __u32 type, key_bytes, value_bytes, entries, flags; };
struct kept { __u64 dialled; };
struct counts { __u64 established, refused, measured; };

/* Address and port, as the kernel has them: the address is in the lower half. */
MAP(endpoints, BPF_MAP_TYPE_HASH, 8, 8, 16, 0);
MAP(counts, BPF_MAP_TYPE_HASH, 8, sizeof(struct counts), 16, 0);
MAP(connections, BPF_MAP_TYPE_SK_STORAGE, 4, sizeof(struct kept), 0, BPF_F_NO_PREALLOC);

PART("cgroup/connect4") int connect4(struct bpf_sock_addr *dial)
{
	__u64 dialled = (__u64)dial->user_port << 32 | dial->user_ip4;
	__u64 *endpoint = lookup(&endpoints, &dialled);
	if (!endpoint)
		return 1;
	struct kept *kept = kept_of(&connections, dial->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!kept)
		return 1;
	kept->dialled = dialled;
	dial->user_ip4 = *endpoint;
	dial->user_port = *endpoint >> 32;
	return 1;
}

PART("cgroup/getpeername4") int getpeername4(struct bpf_sock_addr *peer)
{
	struct kept *kept = kept_of(&connections, peer->sk, 0, 0);
	if (kept) {
		peer->user_ip4 = kept->dialled;
		peer->user_port = kept->dialled >> 32;
	}
	return 1;
}

PART("sockops") int followed(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;
	struct kept *kept = sk ? kept_of(&connections, sk, 0, 0) : 0;
	if (!kept)
		return 1;
	__u64 dialled = kept->dialled;
	struct counts *of = lookup(&counts, &dialled);
	if (!of)
		return 1;
	switch (ops->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		ask_for(ops, BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTT_CB_FLAG);
		break;
	case BPF_SOCK_OPS_RTT_CB:
		__sync_fetch_and_add(&of->measured, 1);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		__sync_fetch_and_add(&of->established, 1);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ops->args[0] == BPF_TCP_SYN_SENT && ops->args[1] == BPF_TCP_CLOSE)
			__sync_fetch_and_add(&of->refused, 1);
		break;
	}
	return 1;
}

char _license[] PART("license") = "GPL";

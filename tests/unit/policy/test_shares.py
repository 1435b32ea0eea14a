from dataclasses import dataclass

import pytest

from userspace_proxy.policy.shares import CONNECTION_BYTES, choose, choose_to_free, network_of

WEB, CART, DB = "web", "cart", "db"
ALICE, BOB = "10.0.0.1", "10.0.0.2"
NOW = 1e6


@dataclass(frozen=True)
class Connection:
    client_ip: str
    group: str
    idle: float = 0.0
    age: float = 100.0

    @property
    def started(self):
        return NOW - self.age

    def idle_since(self, now):
        return now - self.idle


def held(count, client_ip, group, **others):
    """Return this many connections of one client, from the longest idle to the least idle."""
    return [Connection(client_ip, group, count - n, **others) for n in range(count)]


def crowd(count, group, *, each=1, ip="10.1.{}.{}", **others):
    """Return this many connections, of clients with ``each`` connections."""
    return [
        c
        for n in range(count // each)
        for c in held(each, ip.format(n // 250, n % 250), group, **others)
    ]


def in_use(count, group, **others):
    """Return one connection without idle time for each of many clients."""
    return [Connection(c.client_ip, c.group, 0.0) for c in crowd(count, group, **others)]


@pytest.mark.parametrize(
    ("connections", "newcomers", "expected"),
    [
        pytest.param(held(400, ALICE, WEB), CART, (ALICE, WEB, 400, 50), id="one-client"),
        pytest.param(held(400, ALICE, WEB), WEB, (ALICE, WEB, 400, 50), id="also-in-its-service"),
        pytest.param(
            [c for n in range(100) for c in held(4, ALICE, f"service {n}")],
            CART,
            (ALICE, None, 400, 50),
            id="one-client-of-all-services",
        ),
        pytest.param(
            [c for n in range(10) for c in held(39 + n % 2, ALICE, f"service {n}")],
            CART,
            (ALICE, "service 1", 395, 49),
            id="one-client-where-it-has-the-most",
        ),
        pytest.param(crowd(400, WEB), CART, ("", WEB, 400, 200), id="many-clients-of-one-service"),
        pytest.param(
            crowd(300, WEB) + held(100, ALICE, DB),
            CART,
            ("", WEB, 300, 200),
            id="a-flooded-service-is-reset-before-another-services-pool",
        ),
        pytest.param(
            held(200, ALICE, WEB) + held(201, BOB, DB),
            CART,
            (BOB, DB, 201, 50),
            id="the-larger-of-two",
        ),
        pytest.param(held(17, ALICE, WEB), CART, (ALICE, WEB, 17, 16), id="few-connections"),
        pytest.param(
            held(300, ALICE, WEB) + held(100, ALICE, DB),
            CART,
            (ALICE, WEB, 300, 50),
            id="one-client-of-a-flooded-service-and-of-another",
        ),
    ],
)
def test_connections_of_the_largest_client_or_service_are_reset(connections, newcomers, expected):
    assert choose(connections, newcomers, NOW)[:4] == expected


def test_the_longest_idle_connections_of_the_largest_holder_are_reset_first():
    mine, others = held(100, ALICE, WEB), held(30, BOB, DB)
    assert choose(mine + others, CART, NOW).victims == mine[:8]


def test_at_the_limit_a_64th_of_very_many_connections_is_reset():
    assert len(choose(held(6400, ALICE, WEB), CART, NOW).victims) == 100
    others = crowd(2800, CART) + crowd(2799, DB, ip="10.2.{}.{}")
    assert len(choose(held(801, ALICE, WEB) + others, CART, NOW).victims) == 1


def test_a_clients_flood_of_one_service_spares_its_other_connections():
    pool = [Connection(ALICE, DB, idle=5000.0) for _ in range(40)]
    flood = held(100, ALICE, WEB)
    others = crowd(100, CART)
    assert choose(pool + flood + others, DB, NOW).victims == flood[:8]


def test_a_flood_of_many_services_leaves_a_few_connections_to_each():
    flood = held(18, ALICE, WEB) + held(17, ALICE, DB)
    assert choose(flood + crowd(18, CART), CART, NOW).victims == flood[:2]


@pytest.mark.parametrize("idle", [100.0, 0.0], ids=["idle", "in-use"])
def test_the_largest_client_loses_connections_even_within_its_share(idle):
    largest = [Connection(ALICE, WEB, idle) for _ in range(5)]
    others = [
        *crowd(120, WEB, each=4),
        *crowd(120, DB, each=4, ip="10.2.{}.{}"),
        *crowd(120, "dns", each=4, ip="10.3.{}.{}"),
    ]
    eviction = choose(others + largest, CART, NOW)
    assert eviction.victims == largest[:2]
    assert (eviction.client, eviction.held) == (ALICE, 5)


def test_a_new_connection_to_a_flooded_service_resets_connections_of_its_largest_client():
    mine = held(3, ALICE, WEB)
    eviction = choose(crowd(300, WEB, each=2) + mine + held(40, BOB, DB), WEB, NOW)
    assert eviction.victims == mine[:2]


def test_with_one_connection_per_client_the_longest_idle_connection_is_reset():
    idle = Connection(ALICE, CART, idle=50.0)
    connections = [*in_use(190, WEB), *in_use(190, DB, ip="10.2.{}.{}"), idle]
    assert choose(connections, CART, NOW).victims == [idle]


@pytest.mark.parametrize(
    "connections",
    [
        pytest.param([], id="none-is-open"),
        pytest.param(in_use(200, WEB) + in_use(200, DB, ip="10.2.{}.{}"), id="all-are-in-use"),
        pytest.param(
            crowd(200, WEB, each=2, age=9.0) + crowd(200, DB, each=2, age=9.0), id="all-are-new"
        ),
    ],
)
def test_a_new_connection_waits_if_no_connection_may_be_reset(connections):
    assert choose(connections, CART, NOW) is None


def test_a_64_network_of_ipv6_clients_counts_as_one_client():
    """A single host may own a whole /64."""
    network = in_use(100, WEB, ip="2001:db8::{}:{}") + in_use(100, CART, ip="2001:db8::1:{}:{}")
    eviction = choose(network + crowd(180, DB, each=4), CART, NOW)
    assert {network_of(c.client_ip) for c in eviction.victims} == {network_of("2001:db8::")}


def test_recent_connections_of_the_largest_client_network_are_not_reset():
    network = crowd(200, WEB, ip="2001:db8::{}:{}", age=1.0)
    assert choose(network + crowd(200, DB, each=4), CART, NOW) is None


def test_the_address_with_the_most_connections_of_a_network_loses_connections():
    """The pods of a node may share a /64."""
    greedy = held(40, "2001:db8::a:1", WEB)
    pods = crowd(140, WEB, each=2, ip="2001:db8::{}:{}") + crowd(180, DB, each=10)
    assert choose(pods + greedy, CART, NOW).victims == greedy[:2]


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        pytest.param("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True, id="one-64"),
        pytest.param("2001:db8::1", "2001:db8:0:1::1", False, id="two-64s"),
        pytest.param("fe80::1%lo", "fe80::2", True, id="link-local"),
    ],
)
def test_the_client_network_of_an_ipv6_address_is_its_64_prefix(one, other, is_same):
    assert (network_of(one) == network_of(other)) == is_same


def test_an_ipv4_address_has_no_client_network():
    assert network_of(ALICE) is None


def to_free(connections, buffers, excess, spared=0):
    """Return which connections are reset to free this many bytes."""
    return choose_to_free(
        connections, lambda c: buffers.get(c, 0), excess=excess, spared=spared, now=NOW
    )


MIB = 1024 * 1024


def test_to_free_picks_the_largest_buffers_of_the_largest_client_first():
    greedy, web = held(3, ALICE, WEB), held(2, BOB, WEB)
    buffers = dict(zip([*greedy, *web], [MIB, 3 * MIB, 2 * MIB, 4 * MIB, MIB], strict=True))
    alice, bob = [greedy[1], greedy[2], greedy[0]], [web[0], web[1]]
    assert to_free([*web, *greedy], buffers, 1) == alice[:1]
    assert to_free([*web, *greedy], buffers, 5 * MIB) == alice[:2]
    assert to_free([*web, *greedy], buffers, 7 * MIB) == [*alice, *bob[:1]]


def test_among_similar_buffers_the_longest_idle_connection_is_closed_first():
    connections = held(4, ALICE, WEB)
    buffers = {c: MIB + number for number, c in enumerate(connections)}
    assert to_free(connections, buffers, 2 * MIB) == connections[:2]


def test_without_buffers_the_largest_clients_longest_idle_connections_are_closed():
    connections = [*crowd(40, CART), *held(400, ALICE, WEB)]
    assert to_free(connections, {}, 3 * CONNECTION_BYTES) == connections[40:43]


def test_connections_with_buffers_are_closed_before_idle_connections():
    connections = [*crowd(40, CART), *held(400, ALICE, WEB)]
    buffers = {connections[0]: MIB}
    assert to_free(connections, buffers, MIB + 3 * CONNECTION_BYTES) == [
        connections[0],
        *connections[40:42],
    ]


def test_to_free_leaves_the_permitted_memory_to_connections():
    connections = held(4, ALICE, WEB)
    buffers = dict.fromkeys(connections, MIB)
    assert to_free(connections, buffers, 10 * MIB, spared=3 * MIB) == connections[:2]
    assert to_free(connections, {}, 10 * MIB, spared=3 * MIB) == []


def test_no_connection_is_reset_to_free_memory_if_none_is_open_or_all_are_in_use():
    assert to_free([], {}, MIB) == []
    assert to_free(in_use(10, WEB), {}, MIB) == []

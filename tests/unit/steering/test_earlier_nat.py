from contextlib import closing

import pytest

from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering.earlier_nat import EarlierNat, earlier_chains, follow
from userspace_proxy.steering.others import Chain, Step
from userspace_proxy.steering.others.nft import CHAINS_MAX

WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
NODE_PORT = Frontend("127.0.0.1", 30080, Protocol.TCP)
HERE = "fib daddr type local tcp dport 30080"


NAMED = "ip daddr 10.96.7.1/32 tcp dport 80"
TO_WEB = Step("translate", NAMED)
ALL = Step("translate")


@pytest.mark.parametrize(
    ("steps", "others", "expected"),
    [
        pytest.param([TO_WEB], {}, True, id="named"),
        pytest.param([Step("translate", f"{NAMED} …")], {}, None, id="named-for-some"),
        pytest.param([Step("translate", "…daddr")], {}, None, id="looked-up"),
        pytest.param([Step("translate", "tcp …dport")], {}, None, id="port-looked-up"),
        pytest.param([Step("vmap", "…daddr")], {}, None, id="verdict-looked-up"),
        pytest.param([Step("translate", "…")], {}, False, id="some-clients-of-everything"),
        pytest.param([Step("vmap", "…")], {}, False, id="verdict-by-something-else"),
        pytest.param([Step("accept", NAMED), ALL], {}, False, id="accepted-before"),
        pytest.param([Step("accept"), TO_WEB], {}, False, id="everything-is-accepted-before"),
        pytest.param([Step("accept", "…"), TO_WEB], {}, None, id="some-are-accepted-before"),
        pytest.param([Step("accept", "udp dport 80"), ALL], {}, True, id="others-are-accepted"),
        pytest.param([Step("return", NAMED), ALL], {}, False, id="left-before"),
        pytest.param([Step("jump x", NAMED)], {"x": [ALL]}, True, id="in-another-chain"),
        pytest.param([Step("jump x", "…")], {"x": [TO_WEB]}, None, id="in-a-chain-for-some"),
        pytest.param([Step("jump x", "…")], {"x": [ALL]}, False, id="all-in-a-chain-for-some"),
        pytest.param([Step("jump x"), TO_WEB], {"x": [Step("return")]}, True, id="returns"),
        pytest.param([Step("jump x"), TO_WEB], {"x": [Step("accept")]}, False, id="ends-there"),
        pytest.param([Step("goto x"), TO_WEB], {"x": []}, False, id="never-returns"),
        pytest.param([Step("jump x"), TO_WEB], {"x": [Step("jump x")]}, True, id="circle"),
    ],
)
def test_rules_are_followed_in_their_order(steps, others, expected):
    chains = {name: Chain("ip evil", name, steps=tuple(s)) for name, s in others.items()}
    base = Chain("ip evil", "pre", "nat", "prerouting", -150, steps=tuple(steps))
    assert follow(base, chains, WEB).is_translated is expected


def test_a_host_port_at_a_node_port_is_found():
    base = Chain("ip evil", "pre", "nat", "prerouting", -150, steps=(Step("translate", HERE),))
    assert follow(base, {}, NODE_PORT).is_translated is True
    assert follow(base, {}, WEB).is_translated is False


@pytest.mark.parametrize(
    ("table", "chain", "is_earlier"),
    [
        pytest.param("ip evil", ("nat", "prerouting", -150), True, id="before"),
        pytest.param("ip evil", ("nat", "output", -110), True, id="beside"),
        pytest.param("ip nat", ("nat", "prerouting", -100), False, id="docker"),
        pytest.param("inet firewalld", ("nat", "prerouting", -90), False, id="firewalld"),
        pytest.param("ip evil", ("nat", "postrouting", -150), False, id="masquerades"),
        pytest.param("ip evil", ("filter", "prerouting", -300), False, id="filters"),
        pytest.param(
            "inet userspace-proxy-canary", ("nat", "output", -110), False, id="a-userspace-proxys"
        ),
    ],
)
def test_only_other_programs_nat_chains_at_or_before_the_priority_matter(table, chain, is_earlier):
    tables = {table: {"chain": Chain(table, "chain", *chain)}}
    assert bool(list(earlier_chains(tables, -110))) == is_earlier


def test_of_twice_as_many_chains_as_are_read_the_first_count_and_those_of_others(node, tmp_path):
    here, beyond, others = (f"10.96.7.{number}" for number in (1, 2, 3))
    last = 2 * CHAINS_MAX - 1
    translated = {0: here, last: beyond}
    chains = "".join(
        f"chain c{n} {{ ip daddr {translated.get(n, '192.0.2.1')} dnat to 192.0.2.2; }}; "
        for n in range(last + 1)
    )
    jumps = "; ".join(f"jump c{n}" for n in range(last + 1))
    hook = "type nat hook prerouting priority -150;"
    other = f"chain pre {{ {hook} jump x; }}; chain x {{ ip daddr {others} dnat to 192.0.2.2; }}"
    rules = tmp_path / "rules"
    rules.write_text(
        f"table ip many {{ {chains} chain pre {{ {hook} {jumps}; }}; }}\n"
        f"table ip other {{ {other}; }}\n"
    )
    node.run(f"nft -f {rules}")
    frontends = {ip: Frontend(ip, 80, Protocol.TCP) for ip in (here, beyond, others)}
    with closing(EarlierNat(-110)) as earlier:
        found = earlier.look(frontends.values())
    assert {ip: frontend in found for ip, frontend in frontends.items()} == {
        here: True,
        beyond: False,
        others: True,
    }

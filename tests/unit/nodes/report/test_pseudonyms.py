import ipaddress
import re

import pytest

from tests.fuzz.cost import check_cost
from userspace_proxy.causes.say import say
from userspace_proxy.causes.slices import none_ready
from userspace_proxy.model.annotations import DOMAIN
from userspace_proxy_kubectl.nodes.report.pseudonyms import Pseudonyms

KEY = b"a key of tests"
NODE = "ip-10-0-3-7.eu-west-1.compute.internal"


@pytest.fixture
def names():
    names = Pseudonyms(KEY)
    names.learn("namespace", ["shop", "kube-system", "default"])
    names.learn("service", ["web", "shop"])
    names.learn("node", ["node-1", NODE])
    return names


def test_a_name_has_the_same_pseudonym_everywhere(names):
    hidden = names.hide("shop/web:http on node-1: web.shop.svc.cluster.local, Service 'web'")
    shop, web, node = (names.name(name, "") for name in ("shop", "web", "node-1"))
    assert hidden == f"{shop}/{web}:http on {node}: {web}.{shop}.svc.cluster.local, Service '{web}'"
    assert [one.partition("-")[0] for one in (shop, web, node)] == ["namespace", "service", "node"]


def test_two_archives_have_different_pseudonyms_for_the_same_name(names):
    others = Pseudonyms(b"another key")
    others.learn("service", ["web"])
    assert others.hide("web 10.0.0.1") != names.hide("web 10.0.0.1")


@pytest.mark.parametrize(
    "text",
    [
        "web-7d9f8b6c5-x2x4z is gone", "web-0 is gone", "cart-7d9f8b6c5-x2x4z is gone",
        "db.corp.example.com is gone", f"{NODE} is gone", "alice@corp.example.com is gone",
        "10-244-3-9.shop.pod.cluster.local is gone", "ip-10-0-9-9 is gone", "WEB is gone",
        "userspace-proxy-x2x4z is gone", "aa:bb:cc:dd:ee:0f is gone", "fe80::1%eth0 is gone",
        'User "alice" is gone', "acme/zeta is gone", "acme/zeta:http is gone",
        "deployment/zeta is gone", 'deployments.apps "zeta" not found; it is gone',
        "acme/zeta. is gone",
        "web-headless.shop is gone", "::ffff:10.0.0.9 is gone",
    ],
)  # fmt: skip
def test_text_shaped_like_a_name_is_hidden(names, text):
    hidden = names.hide(text)
    assert not re.search(r"acme|zeta", hidden)
    first = text.removesuffix(" is gone").removeprefix('User "').strip('"')
    assert first.partition("%")[0] not in hidden
    assert hidden.endswith(" is gone")


@pytest.mark.parametrize(
    "text",
    [
        f"refused: {say(none_ready(3, 0, ''))}; 12:30:45, 2026-11-26T19:00:00.123Z",
        "kube-system/kube-dns, default/kubernetes, userspace-proxy 0.1.0 (commit 0123456789ab)",
        "Linux 5.10.0-32-amd64, nft v1.0.9, Kubernetes v1.36.3",
        f"annotation {DOMAIN}hold beside kubernetes.io/service-name",
        "net.bridge.bridge-nf-call-iptables is 0; /etc/userspace-proxy/config.conf",
        "pods/portforward, nodes, 1/2 of 30, 80/TCP, 12 bytes/s, linux/amd64",
        "/proc/1/ns/net, /run/xtables.lock, userspace_proxy/cli/main.py",
        "127.0.0.1:10249, [::1]:80, 0.0.0.0:10256, :::80, 169.254.169.254",
    ],
)
def test_words_that_identify_no_object_are_not_replaced_by_pseudonyms(names, text):
    assert names.hide(text) == text


def kind(ip):
    address = ipaddress.ip_address(ip)
    return address.version, address.is_private, address.is_link_local, address.is_multicast


@pytest.mark.parametrize(
    "ip",
    [
        "10.244.3.9", "172.20.1.2", "192.168.7.7", "100.64.0.3", "8.8.8.8", "223.5.5.5",
        "169.254.7.7", "224.0.0.251", "fd00:96::7", "2a00:1450::5", "fe80::7",
    ],
)  # fmt: skip
def test_the_pseudonym_of_an_address_is_an_address_of_the_same_kind(names, ip):
    hidden = names.hide(f"{ip} refuses" if ":" not in ip else f"[{ip}]:80 refuses")
    found = hidden.partition(" ")[0].removesuffix(":80").strip("[]")
    assert found != ip
    assert kind(found) == kind(ip)


def test_pseudonyms_of_addresses_in_one_network_are_in_one_network(names):
    a, b, other = (ipaddress.ip_address(names.address(f"10.244.3.{n}")) for n in (9, 200, 201))
    network = ipaddress.ip_network(names.address("10.244.3.0/24"))
    assert a in network
    assert b in network
    assert len({a, b, other}) == 3
    assert ipaddress.ip_address(names.address("10.244.4.9")) not in network
    assert names.hide("admits 10.244.3.0/24, 0.0.0.0/0").count("/") == 2


def test_an_address_with_leading_zeros_has_the_same_pseudonym(names):
    assert names.hide("010.244.003.009 is ready") == names.hide("10.244.3.9 is ready")


@pytest.mark.parametrize("prefix", ["::ffff:", "64:ff9b::"])
def test_an_ipv4_address_within_ipv6_has_the_same_pseudonym(names, prefix):
    hidden = ipaddress.ip_address(names.address(f"{prefix}10.244.3.9"))
    assert hidden == ipaddress.ip_address(prefix + names.address("10.244.3.9"))


def test_different_addresses_have_different_pseudonyms(names):
    some = [f"10.{a}.{b}.7" for a in range(20) for b in range(20)] + [
        f"8.8.{n}.8" for n in range(99)
    ]
    assert len({names.address(ip) for ip in some}) == len(some)


def test_equal_digests_have_equal_pseudonyms_of_the_same_length(names):
    assert names.digest("0123abcd") == names.digest("0123abcd") != names.digest("0123abce")
    assert len(names.digest("0123abcd")) == 8
    assert names.digest("") == ""


@pytest.mark.parametrize("home", ["/home/{}/.kube/config", "/Users/{}/x", r"C:\Users\{}\x"])
def test_the_users_home_directory_name_is_hidden(names, home):
    hidden = names.hide(f"cannot read {home.format('alice')}")
    assert hidden == f"cannot read {home.format(names.name('alice', 'user'))}"


def test_a_removed_service_has_the_same_pseudonym_everywhere(names):
    hidden = names.hide("acme/zeta: removed; zeta in acme is gone")
    namespace, service = hidden.partition(":")[0].split("/")
    assert hidden == f"{namespace}/{service}: removed; {service} in {namespace} is gone"


@pytest.mark.parametrize(
    "part", ["a-", "a.", "a/", "1.", "1-", "a@", ":a", "::", 's "', "web-", " "]
)
def test_hiding_names_takes_linear_time(names, part):
    check_cost(lambda data: names.hide(data.decode()), part.encode() * ((1 << 16) // len(part)))

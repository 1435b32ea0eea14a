import pytest

from userspace_proxy.config.forms import (
    DOMAIN,
    JOINED_CIDRS,
    LABEL_VALUE,
    NODE_ADDRESS,
    NODE_NAME,
    NODEPORT_ADDRESSES,
    SERVER,
    SERVICE_CIDRS,
    WORKERS,
    dns_address,
    listen_address,
)
from userspace_proxy.errors import ConfigError
from userspace_proxy.model import SocketAddress

HEALTH = listen_address(10256)


@pytest.mark.parametrize(
    ("kind", "value", "read"),
    [
        pytest.param(HEALTH, "10.0.0.1", SocketAddress("10.0.0.1", 10256), id="default-port"),
        pytest.param(HEALTH, "disabled", None, id="disabled"),
        pytest.param(dns_address(), "10.0.0.1", SocketAddress("10.0.0.1", 53), id="dns"),
        pytest.param(dns_address(), "disabled", None, id="no-dns"),
        pytest.param(DOMAIN, "Cluster.Local.", "cluster.local", id="domain"),
        pytest.param(NODE_ADDRESS, "[FD00::1]", "fd00::1", id="node-address"),
        pytest.param(NODE_NAME, " Node-1.Example ", "node-1.example", id="node-name"),
        pytest.param(NODE_NAME, " ", "", id="no-name"),
        pytest.param(LABEL_VALUE, "UPPER_x.1", "UPPER_x.1", id="label"),
        pytest.param(LABEL_VALUE, 63 * "a", 63 * "a", id="longest-label"),
        pytest.param(LABEL_VALUE, "", "", id="no-label"),
        pytest.param(SERVER, "https://10.0.0.1:6443", "https://10.0.0.1:6443", id="url"),
        pytest.param(SERVER, "10.0.0.1:6443", "https://10.0.0.1:6443", id="host-and-port"),
        pytest.param(SERVER, "", "", id="no-server"),
        pytest.param(WORKERS, "auto", None, id="as-many-as-cores"),
        pytest.param(WORKERS, 4, 4, id="four-workers"),
        pytest.param(NODEPORT_ADDRESSES, ["primary"], ("primary",), id="primary"),
        pytest.param(
            NODEPORT_ADDRESSES,
            ["primary", "10.0.0.1/8", "localhost", "all"],
            ("primary", "10.0.0.0/8", "localhost", "all"),
            id="words-among-cidrs",
        ),
        pytest.param(NODEPORT_ADDRESSES, ["10.0.0.1/8"], ("10.0.0.0/8",), id="one-cidr"),
        pytest.param(JOINED_CIDRS, "10.0.0.0/8,fd00::/8", ("10.0.0.0/8", "fd00::/8"), id="pair"),
        pytest.param(JOINED_CIDRS, "", (), id="no-cidr"),
    ],
)
def test_a_setting_value_is_parsed_by_its_form(kind, value, read):
    assert kind.read(value) == read


@pytest.mark.parametrize("value", ["a b", "a/b", "-a", "a.", "é", "a\n", 64 * "a"])
def test_an_invalid_label_value_is_rejected(value):
    with pytest.raises(ConfigError) as caught:
        LABEL_VALUE.read(value)
    assert caught.value.message == f"{value!r} is not a label's value, so no Service can have it"
    assert caught.value.hint.startswith("at most 63 letters, digits, '-'")


@pytest.mark.parametrize("value", ["node 1", "-node"])
def test_an_invalid_node_name_is_rejected(value):
    with pytest.raises(ConfigError) as caught:
        NODE_NAME.read(value)
    assert caught.value.message == f"{value!r} is not a node's name"
    assert caught.value.hint.startswith("letters, digits, '-'")


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (SERVER, "ftp://x", "'ftp://x' is not a server's URL (write https://10.0.0.1:6443)"),
        (SERVER, "a b", "'a b' is not a server's URL (write https://10.0.0.1:6443)"),
        (SERVER, "https://", "'https://' is not a server's URL (write https://10.0.0.1:6443)"),
        (SERVER, "a:b:c", "'a:b:c' is not a server's URL (write https://10.0.0.1:6443)"),
        (WORKERS, "many", "'many' is not a whole number (write auto, or 1–64)"),
        (WORKERS, "0", "0 is not in 1–64 (write auto, or 1–64)"),
        (WORKERS, True, "True (a boolean) is not auto or a whole number"),
        (
            NODEPORT_ADDRESSES,
            ["primary", "everything"],
            "'everything' is not a CIDR (or write primary, localhost, all)",
        ),
        (NODEPORT_ADDRESSES, "10.0.0.0/8", "'10.0.0.0/8' (text) is not a list of strings"),
        (JOINED_CIDRS, ["10.0.0.0/8"], "a list is not text"),
        (SERVICE_CIDRS, [], "contains no network (write 10.96.0.0/12, or leave it out)"),
        (HEALTH, 10256, "10256 (a number) is not text such as 0.0.0.0:10256"),
    ],
)
def test_an_invalid_setting_value_is_rejected(kind, value, message):
    with pytest.raises(ConfigError) as caught:
        kind.read(value)
    assert str(caught.value) == message


@pytest.mark.parametrize("host", ["10.0.0.1:6443", "[", "10.0.0.1:x"])
def test_a_password_in_a_url_is_rejected_and_not_repeated(host):
    with pytest.raises(ConfigError) as caught:
        SERVER.parse(f"https://alice:secret@{host}")
    message = "a URL must not contain a password (put it into the kubeconfig)"
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["10.0.0.1:80", "[::]:10256", "fd://3", "disabled"])
def test_a_listen_address_round_trips(text):
    assert HEALTH.write(HEALTH.parse(text)) == text

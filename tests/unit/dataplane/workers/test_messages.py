import json
from dataclasses import asdict

import pytest

from userspace_proxy.dataplane import Serving
from userspace_proxy.dataplane.workers import messages
from userspace_proxy.dataplane.workers.messages import (
    ChangeGroup,
    Counted,
    Drain,
    Drained,
    Ejected,
    GroupReport,
    Logged,
    OpenGroup,
    OpenListener,
    Start,
    decode,
    encode,
)
from userspace_proxy.model import Balance, SocketAddress

POD_A, POD_B = SocketAddress("10.0.0.1", 80), SocketAddress("fd00::2", 80)


@pytest.mark.parametrize(
    "message",
    [
        Start(1, {"tcp_idle_s": 3600.0, "udp_idle_s": None}, {"userspace_proxy": 20}),
        OpenListener(7, 3, "TCP", "0.0.0.0", 17000, True),
        Drain(0.3),
        Drained(2),
        Logged("userspace_proxy", 40, 1.5, "é%s", {"cause": None, "count": 3}, "Traceback"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_arrives_as_it_was(message):
    assert decode(encode(message)) == message


def test_addresses_and_nested_messages_arrive_as_lists():
    opened = OpenGroup(3, "shop/web:http", {"endpoints": [POD_A, POD_B]})
    assert decode(encode(opened)).serving["endpoints"] == [["10.0.0.1", 80], ["fd00::2", 80]]
    report = GroupReport(3, [0, 0, 0, 0, 1, 0], [(POD_A, 1, 2, 3, 4, 5)], [(POD_B, 4.5)])
    (arrived,) = decode(encode(Counted(9, [report], 1, 4, 2, 3, True, [5, 0], 0.5))).groups
    assert GroupReport(*arrived).endpoints == [[["10.0.0.1", 80], 1, 2, 3, 4, 5]]


def test_a_serving_arrives_with_lists_for_sequences_and_text_for_the_balance():
    serving = Serving(
        [POD_A], outside=(), admits=("10.0.0.0/8",), balance=Balance.LEAST_CONNECTIONS
    )
    assert decode(encode(OpenGroup(3, "shop/web:http", asdict(serving)))).serving == {
        "endpoints": [["10.0.0.1", 80]],
        "affinity_timeout_s": None,
        "outside": [],
        "inside": [],
        "admits": ["10.0.0.0/8"],
        "balance": "least-connections",
        "keeps_clients": True,
    }


def test_one_changed_endpoint_is_less_than_a_hundred_bytes():
    assert len(encode(ChangeGroup(4711, [POD_A], [(2500, POD_B)], {}))) < 100
    assert len(encode(Ejected(4711, POD_A, True))) < 50


def test_every_kind_of_message_is_known_by_its_name():
    kinds = {kind.__name__ for kind in vars(messages).values() if isinstance(kind, type)}
    kinds -= {"NamedTuple", "Any", "Sequence", "GroupReport"}
    assert set(messages._TYPES) == kinds


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff\xfe", id="no-text"),
        pytest.param(b"hello", id="no-json"),
        pytest.param(b"7", id="a-number"),
        pytest.param(b"{}", id="an-object"),
        pytest.param(b"[]", id="an-empty-list"),
        pytest.param(b'["Sesame"]', id="an-unknown-name"),
        pytest.param(b'[["Drain"], 1]', id="a-list-for-a-name"),
        pytest.param(b'["Drain"]', id="too-few-fields"),
        pytest.param(b'["Drain", 1, 2]', id="too-many-fields"),
        pytest.param(b"[" * 200_000, id="too-deep"),
        pytest.param(b"[" + b"9" * 10_000 + b"]", id="too-large-a-number"),
    ],
)
def test_what_is_no_message_is_an_error_that_the_reader_expects(data):
    with pytest.raises(ValueError):  # noqa: PT011 - any is expected
        decode(data)


def test_the_form_is_plain_json():
    assert json.loads(encode(Drain(1.5))) == ["Drain", 1.5]

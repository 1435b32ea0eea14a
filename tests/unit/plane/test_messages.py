import msgspec
import pytest

from tests.port_keys import port_key
from userspace_proxy.dataplane import Tuning
from userspace_proxy.facts import (
    STREAKS,
    TIMES_BOUNDS_S,
    EndpointCounters,
    GroupCounters,
    StreakPart,
)
from userspace_proxy.facts.connection_outcome import ConnectionOutcome, EndFacts
from userspace_proxy.facts.streak import LateByte
from userspace_proxy.model import Balance, Failure, Handling, Protocol, SocketAddress
from userspace_proxy.model.connection_ends import EndedBy
from userspace_proxy.model.serving import Serving
from userspace_proxy.plane.messages import (
    ChangeGroup,
    Counted,
    Drain,
    Drained,
    DurationReport,
    Ejected,
    EndpointReport,
    FromWorker,
    GroupReport,
    Logged,
    OpenGroup,
    OpenListener,
    Start,
    Status,
    ToWorker,
)

POD_A, POD_B = SocketAddress("10.0.0.1", 80), SocketAddress("fd00::2", 80)
ALL = ToWorker | FromWorker
encode = msgspec.json.encode
SPLIT = Serving(
    (POD_A,),
    outside=(),
    admits=("10.0.0.0/8",),
    handling=Handling(balance=Balance.LEAST_CONNECTIONS),
)
NO_FIGURES = GroupCounters().figures()


@pytest.mark.parametrize(
    "message",
    [
        Start(1, Tuning(tcp_idle_s=3600.0), {"userspace_proxy": 20}),
        OpenGroup(3, port_key("shop/web:http"), SPLIT),
        ChangeGroup(3, [POD_A], [(0, POD_B)], SPLIT),
        OpenListener(7, 3, Protocol.UDP, POD_B),
        Drain(0.3),
        Drained(2),
        Counted(
            9, [GroupReport(3, NO_FIGURES, [], [(POD_B, 4.5)])], Status(1, 4, iterations=[5, 0])
        ),
        Logged("userspace_proxy", 40, 1.5, "é%s", {"cause": None, "count": 3}, "Traceback"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_round_trips_through_its_encoding(message):
    assert msgspec.json.decode(encode(message), type=ALL) == message


def test_a_message_about_one_endpoint_takes_fewer_than_100_bytes():
    assert len(encode(ChangeGroup(4711, [POD_A], [(2500, POD_B)]))) < 100
    assert len(encode(Ejected(4711, POD_A, True))) < 50


def in_a_report(dials):
    """Return a message that is valid except for these streaks of failures."""
    report = GroupReport(3, NO_FIGURES, [EndpointReport(POD_A, EndpointCounters().figures())])
    data = encode(Counted(9, [report], Status()))
    others = b",null" * (len(STREAKS) - 1)
    return data.replace(b",null" + others + b"]", b"," + dials + others + b"]", 1)


@pytest.mark.parametrize("count", [len(TIMES_BOUNDS_S), len(TIMES_BOUNDS_S) + 2])
def test_a_duration_report_with_a_wrong_number_of_counts_is_rejected(count):
    report = GroupReport(3, NO_FIGURES, [], [], DurationReport([0] * count, 0.0))
    with pytest.raises(ValueError):  # noqa: PT011 - any is expected
        msgspec.json.decode(encode(Counted(9, [report], Status())), type=FromWorker)


def test_failure_streaks_round_trip():
    decoded = msgspec.json.decode(in_a_report(b'[1, 1, 2, 3, "refused", 111]'), type=FromWorker)
    assert decoded.groups[0].endpoints[0].dials == StreakPart(1, 1, 2, 3, Failure.REFUSED, 111)


@pytest.mark.parametrize("left_s", [0.0, 1.0])
def test_a_late_first_byte_round_trips(left_s):
    counters = EndpointCounters()
    left = EndFacts(EndedBy.CLIENT, silent_s=left_s + 0.5, left_s=left_s)
    ConnectionOutcome(counters, counters, "192.0.2.7", now=2.5).note_first_byte(5.0, left)
    report = counters.ends.whole()
    decoded = msgspec.json.decode(encode(report), type=StreakPart)
    assert decoded.late == counters.ends.part.late == LateByte(2.5, is_at_end=left_s == 0)


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
        pytest.param(b'["Drain",1]', id="a-command"),
        pytest.param(b'[["Drained"], 1]', id="a-list-for-a-name"),
        pytest.param(b'["Drained"]', id="too-few-fields"),
        pytest.param(b'["Drained", 1, 2]', id="too-many-fields"),
        pytest.param(b'["Drained", "1"]', id="a-text-for-a-number"),
        pytest.param(b'["Drained", 99999999999999999999]', id="too-large-a-number"),
        pytest.param(b'["Ejected", 1, ["10.0.0.1"], true]', id="half-an-address"),
        pytest.param(b'["Counted", 1, [[1, [0], [], []]], []]', id="too-few-figures"),
        pytest.param(in_a_report(b"[1e300, 1, 2, 3, 111]"), id="an-impossible-moment"),
        pytest.param(
            in_a_report(b'[1, 1, 2, 3, "refused", 99999]'), id="an-errno-that-does-not-exist"
        ),
        pytest.param(in_a_report(b"[1, 1, 2, 3, 111]"), id="a-failure-that-does-not-exist"),
        pytest.param(in_a_report(b"[1, -1, 2, 3, 111]"), id="less-than-no-failures"),
        pytest.param(in_a_report(b'[1, 1, 2, 3, 111, "<b>"]'), id="a-client-without-an-address"),
        pytest.param(b'["Logged", "a", 1, 1e300, "", {}, ""]', id="an-impossible-time"),
    ],
)
def test_a_malformed_message_is_rejected(data):
    with pytest.raises(ValueError):  # noqa: PT011 - any is expected
        msgspec.json.decode(data, type=FromWorker)


def test_messages_are_encoded_as_json_arrays_of_name_and_values():
    assert encode(Drain(1.5)) == b'["Drain",1.5]'
    assert encode(OpenGroup(3, port_key("shop/web:http"), SPLIT)) == (
        b'["OpenGroup",3,[["shop","web","http"],4,""],{"endpoints":[["10.0.0.1",80]],"outside":[],'
        b'"admits":["10.0.0.0/8"],"handling":{"balance":"least-connections","seed":0,'
        b'"keeps_clients":true,"hold":null,"slow_start_s":0.0,"max_connections":null,"wake":null,'
        b'"idle_after_s":null,"removal_s":null,"proxy_protocol":null,"path":null,"names":[],'
        b'"found_by_name":[],"port_ranges":[],"shares_affinity":false}}]'
    )

"""Tests of the limits on decoding and keeping the responses of nodes."""

import json
import tracemalloc
from functools import partial

import msgspec
import pytest

from tests.fuzz.cost import check_cost
from userspace_proxy.causes.cause import NEWER_MAX
from userspace_proxy.clocks import Clocks
from userspace_proxy.facts import StatusFacts
from userspace_proxy.facts.connection import ConnectionFacts
from userspace_proxy.facts.edges import EdgesFacts
from userspace_proxy.facts.encoding import encode_answer, read_answer
from userspace_proxy.status.http_answer import ANSWER_BYTES
from userspace_proxy.status.stream import Changes
from userspace_proxy_kubectl.nodes.behind import NodePlan
from userspace_proxy_kubectl.nodes.decoding import (
    DECODED_PER_BYTE,
    KEPT_PER_BYTE,
    LINE_BYTES,
    Allowance,
    TooLarge,
    checked_size,
    most_of,
    read_change,
    read_connection_line,
    read_whole_line,
)
from userspace_proxy_testing.fakes.agent_status import service_objects, status_of

_PORTS = '{"version": "1", "ports": [%s]}'
_SETTINGS = '{"version": "1", "settings": {"a": [%s]}}'
HOSTILE = {
    "ports": (StatusFacts, _PORTS, "{}"),
    "named-ports": (StatusFacts, _PORTS, '{"service": "a%x"}'),
    "endpoints": (StatusFacts, _PORTS % '{"endpoints": [%s]}', "{}"),
    "causes": (StatusFacts, _PORTS % '{"notes": [%s]}', "{}"),
    "causes-before": (
        StatusFacts,
        _PORTS % '{"notes": [%s]}',
        '{"params": {"before": ' * 9 + "{}" + "}}" * 9,
    ),
    "clauses": (StatusFacts, _PORTS % '{"state": {"clauses": [%s]}}', "{}"),
    "places": (StatusFacts, _PORTS % '{"state": {"clauses": [{"causes": [%s]}]}}', "0"),
    "incidents": (StatusFacts, '{"version": "1", "incidents": [%s]}', "{}"),
    "codes": (StatusFacts, _PORTS % '{"failures_by_cause": {%s}}', '"%x": 0'),
    "params": (StatusFacts, _PORTS % '{"notes": [{"params": {%s}}]}', '"a%x": 1'),
    "keys": (StatusFacts, '{"version": "1", "settings": {%s}}', '"%x": 0'),
    "lists": (StatusFacts, _SETTINGS, "[]"),
    "nested-lists": (StatusFacts, _SETTINGS, "[" * 99 + "]" * 99),
    "maps": (StatusFacts, _SETTINGS, '{"": 0}'),
    "numbers": (StatusFacts, _SETTINGS, "1.5"),
    "texts": (StatusFacts, _SETTINGS, '"a%x"'),
    "wide-texts": (StatusFacts, _SETTINGS, '"%x' + "a" * 9999 + '\N{GRINNING FACE}"'),
    "escapes": (StatusFacts, _SETTINGS, '"%x' + "\\ud83d\\ude00" * 999 + '"'),
    "unknown": (StatusFacts, '{"version": "1", "unknown": [%s]}', "{}"),
    "edges": (EdgesFacts, '{"edges": [%s]}', "{}"),
    "digests": (NodePlan, '{"digests": {%s}}', '"%x": ""'),
    "connection": (ConnectionFacts, '{"unknown": [%s]}', "{}"),
}
"""By name: the decoded type, a template of its JSON, and the item to repeat in it."""


def hostile(name, size):
    """Return the type and JSON of a hostile response of about ``size`` bytes."""
    kind, around, item = HOSTILE[name]
    many = max(1, size // (len(item) + 2))
    items = (item % number if "%" in item else item for number in range(many))
    return kind, (around % ",".join(items)).encode()


@pytest.mark.parametrize("name", sorted(HOSTILE.keys() - {"params"}))
def test_decoding_a_response_uses_at_most_a_quarter_more_memory_than_estimated(name):
    kind, line = hostile(name, 5_000)
    Allowance(10 * most_of(line)).decode(line, kind)
    tracemalloc.start()
    value = Allowance(10 * most_of(line)).decode(line, kind)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert value is not None
    # While a dict grows, its old and its new table exist at once.
    assert peak <= 1.25 * most_of(line) + 25_000


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_response_is_rejected_or_kept_within_the_allowance(name):
    body = 50_000
    for size in (2_000, 10_000, body):
        kind, line = hostile(name, size)
        allowance = Allowance(body)
        tracemalloc.start()
        try:
            value = allowance.decode(line, kind)
        except (TooLarge, ValueError):
            value = None
        kept, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert kept <= 1.1 * KEPT_PER_BYTE * body
        # Measuring a dict copies its items.
        assert peak <= 2 * DECODED_PER_BYTE * body
        del value


@pytest.mark.parametrize("endpoints", [0, 3, 100])
def test_real_responses_fit_the_decoding_limits(endpoints):
    status = status_of(service_objects(50, endpoints=endpoints), "node-1")
    line = encode_answer(status)
    assert most_of(line) < DECODED_PER_BYTE * len(line)
    size = checked_size(read_answer(line), 1 << 40)
    assert 0.9 * len(line) < size < KEPT_PER_BYTE * len(line)
    assert Allowance(len(line)).decode(line, StatusFacts).ports


def test_a_response_is_measured_once_its_estimated_size_exceeds_the_allowance():
    allowance = Allowance(1000)
    status = allowance.decode(b'{"version": "1"}', StatusFacts)
    size = allowance.used
    while allowance.used <= KEPT_PER_BYTE * 1000:
        before = allowance.used
        allowance.measure(status)
        assert allowance.used == before
        allowance.decode(b'{"version": "1"}', StatusFacts)
    allowance.measure(status)
    assert allowance.used == size
    allowance.used += 4000
    with pytest.raises(TooLarge):
        allowance.measure(msgspec.structs.replace(status, node="x" * 4000))


def test_the_limit_of_unknown_cause_codes_applies_to_each_line_of_a_stream():
    allowance = Allowance(5000)
    for number in range(2 * NEWER_MAX):
        line = _PORTS % '{"notes": [{"code": "code-%d"}]}' % number
        ((cause,),) = (port.notes for port in allowance.decode(line.encode(), StatusFacts).ports)
        assert cause.code == f"code-{number}"


def test_out_of_range_times_inside_mappings_are_rejected():
    for part in ('"settings": {"at": -1}', '"ports": [{"notes": [{"params": {"at": 1e11}}]}]'):
        with pytest.raises(ValueError, match="a time in it is out of range"):
            Allowance(10_000).decode(b'{"version": "1", %s}' % part.encode(), StatusFacts)


WHOLE = partial(read_whole_line, allowance=Allowance(ANSWER_BYTES))
CHANGE = partial(read_change, allowance=Allowance(ANSWER_BYTES))
STATUS = status_of(service_objects(3), "node-1")


def changed(status, **changes):
    return msgspec.structs.replace(status, **changes)


def test_a_decoded_response_encodes_to_the_same_text():
    assert encode_answer(WHOLE(encode_answer(STATUS))) == encode_answer(STATUS)


def test_applied_changes_yield_the_agents_current_state():
    one, two, three = STATUS.ports
    two = msgspec.structs.replace(two, active=7)
    states = [
        STATUS,
        changed(STATUS, now=STATUS.now + 1, revision=5),
        changed(STATUS, now=STATUS.now + 2, ports=[one, two, three]),
        changed(STATUS, now=STATUS.now + 3, ports=[two, three], served=4),
        changed(STATUS, now=STATUS.now + 4, ports=[two, three, one]),
    ]
    changes, known = Changes(), None
    for state in states:
        line = changes.line(state)
        known = WHOLE(line) if known is None else CHANGE(known, line)
        assert {port.service: port.active for port in known.ports} == {
            port.service: port.active for port in state.ports
        }
        assert (known.now, known.revision) == (state.now, state.revision)
        assert (known.served, known.version) == (state.served, state.version)


def test_unknown_fields_of_a_change_are_ignored_but_delay_the_next_change():
    line = b"{%s}" % b",".join(b'"x%d": 1' % number for number in range(1000))
    began, allowance = Clocks.monotonic(), Allowance(ANSWER_BYTES)
    assert read_change(STATUS, line, allowance) == STATUS
    assert allowance.pacing.due > began


def test_missing_fields_have_defaults_and_unknown_fields_are_ignored():
    status = WHOLE(b'{"version": "0.1.0", "ports": [], "of_tomorrow": {"a": [1]}}')
    assert (status.version, status.served, status.plan.digest) == ("0.1.0", 0, "")


def with_number(text):
    return b'{"version": "1", "revision": %s}' % text


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{}", id="no-version"),
        pytest.param(b'["a"]', id="a-list"),
        pytest.param(b'{"version": 7}', id="wrong-type"),
        pytest.param(b'{"version": "1", "ports": {}}', id="wrong-ports"),
        pytest.param(b'{"version": "\xff"}', id="no-utf-8"),
        pytest.param(b'{"version": "1", "more": ' + b"[" * 100_000, id="deep"),
        pytest.param(with_number(b"9" * 17), id="large"),
        pytest.param(with_number(b"-" + b"9" * 400), id="huge"),
        pytest.param(b'{"version": "1", "started": 1e300}', id="exponent"),
        pytest.param(b'{"version":"1","process":{"cpu_s":1.5E+16}}', id="exponent-and-sign"),
        pytest.param(b'{"version": "1", "now": 99999999999}', id="late"),
        pytest.param(b'{"version": "1", "started":-1}', id="early"),
        pytest.param(b'{"version": "1", "n\\u006fw" :\n\t-1}', id="early-with-an-escaped-key"),
        pytest.param(b'{"version": "1", "revision":  1e300}', id="exponent-after-blanks"),
        pytest.param(
            b'{"version": "1", "sync": {"waiting_since": 99999999999.5}}', id="late-nested"
        ),
    ],
)
def test_an_invalid_response_is_rejected(line):
    with pytest.raises(ValueError, match=r"\w"):
        WHOLE(line)


def test_digits_inside_strings_are_not_checked_as_numbers():
    text = "web-8e45-12345678901234567890: 1e300"
    assert WHOLE(json.dumps({"version": "1", "node": text}).encode()).node == text


def test_a_connection_line_is_bounded_in_size_and_values():
    assert read_connection_line(b'{"service": "shop/web"}').service == "shop/web"
    for line in (b'{"x": [%s]}' % (b"{}," * 5000 + b"{}"), b'{"at": -1}', b"x" * (LINE_BYTES + 1)):
        with pytest.raises(ValueError, match=r"\w"):
            read_connection_line(line)


@pytest.mark.parametrize("part", [b'\\"', b'"', b"\\\n", b'"a":', b",-", b":9.9e", b'"a_at_at_'])
def test_the_search_for_numbers_takes_linear_time(part):
    """In an unterminated text, each quote once cost a scan of the rest."""

    def read(line):
        with pytest.raises(ValueError, match=r"\w"):
            WHOLE(line)

    check_cost(read, with_number(b"9" * 17).removesuffix(b"}") + b', "a": "' + part * 30_000)


def test_integers_below_2_53_are_accepted():
    status = WHOLE(with_number(b"9007199254740991"))
    assert status.revision == (1 << 53) - 1
    assert isinstance(status, StatusFacts)

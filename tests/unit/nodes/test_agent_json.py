"""Whole answers of agents, changes of them, and what isn't one."""

import json
from functools import partial

import msgspec
import pytest

from tests.fuzz.cost import check_cost
from userspace_proxy.facts import StatusFacts
from userspace_proxy.facts.encoding import encode_answer
from userspace_proxy.status.http_answer import ANSWER_BYTES
from userspace_proxy.status.stream import Changes
from userspace_proxy_kubectl.nodes.agent_json import (
    LINE_BYTES,
    read_change,
    read_connection_line,
    read_whole_line,
)
from userspace_proxy_kubectl.nodes.decoding import Allowance
from userspace_proxy_testing.fakes.agent_status import service_objects, status_of

WHOLE = partial(read_whole_line, allowance=Allowance(ANSWER_BYTES))
CHANGE = partial(read_change, allowance=Allowance(ANSWER_BYTES))
STATUS = status_of(service_objects(3), "node-1")


def changed(status, **changes):
    return msgspec.structs.replace(status, **changes)


def test_an_answer_is_read_as_it_was_written():
    assert encode_answer(WHOLE(encode_answer(STATUS))) == encode_answer(STATUS)


def test_changes_give_what_the_agent_has_now():
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


def test_fields_of_a_line_that_no_proxy_has_change_nothing():
    line = b"{%s}" % b",".join(b'"x%d": 1' % number for number in range(1000))
    assert CHANGE(STATUS, line) == STATUS


def test_an_older_proxys_answer_has_defaults_and_a_newer_ones_more_is_left_out():
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
        pytest.param(b'{"version": "1", "n\\u006fw" :\n\t-1}', id="early-in-other-words"),
        pytest.param(b'{"version": "1", "revision":  1e300}', id="exponent-after-blanks"),
        pytest.param(
            b'{"version": "1", "sync": {"waiting_since": 99999999999.5}}', id="late-inside"
        ),
    ],
)
def test_what_is_not_of_a_proxy_is_not_read(line):
    with pytest.raises(ValueError, match=r"\w"):
        WHOLE(line)


def test_numbers_in_texts_are_no_numbers():
    text = "web-8e45-12345678901234567890: 1e300"
    assert WHOLE(json.dumps({"version": "1", "node": text}).encode()).node == text


def test_a_line_of_connections_is_bounded_as_all_that_nodes_send():
    assert read_connection_line(b'{"service": "shop/web"}').service == "shop/web"
    for line in (b'{"x": [%s]}' % (b"{}," * 5000 + b"{}"), b'{"at": -1}', b"x" * (LINE_BYTES + 1)):
        with pytest.raises(ValueError, match=r"\w"):
            read_connection_line(line)


@pytest.mark.parametrize("part", [b'\\"', b'"', b"\\\n", b'"a":', b",-", b":9.9e", b'"a_at_at_'])
def test_numbers_are_looked_for_in_linear_time(part):
    """Without an end of the text, each quote in it took as long as the rest."""

    def read(line):
        with pytest.raises(ValueError, match=r"\w"):
            WHOLE(line)

    check_cost(read, with_number(b"9" * 17).removesuffix(b"}") + b', "a": "' + part * 30_000)


def test_numbers_that_programs_agree_upon_are_read():
    status = WHOLE(with_number(b"9007199254740991"))
    assert status.revision == (1 << 53) - 1
    assert isinstance(status, StatusFacts)

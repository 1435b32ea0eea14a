"""What nodes send is counted before it is decoded, and measured before it is kept."""

import subprocess
import sys
import tracemalloc

import msgspec
import pytest

from userspace_proxy.facts import StatusFacts
from userspace_proxy.facts.connection import ConnectionFacts
from userspace_proxy.facts.edges import EdgesFacts
from userspace_proxy.facts.encoding import encode_answer, read_answer
from userspace_proxy_kubectl.nodes.behind import NodePlan
from userspace_proxy_kubectl.nodes.decoding import (
    DECODED_PER_BYTE,
    KEPT_PER_BYTE,
    Allowance,
    TooLarge,
    checked_size,
    most_of,
)
from userspace_proxy_testing.fakes.agent_status import service_objects, status_of

MEMORY_MAX = 200 << 20
"""What the answers of nodes may take of a laptop."""

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
"""By name: what is read, its JSON, and what that has any number of."""


def hostile(name, size):
    """Return such an answer of about so many bytes."""
    kind, around, item = HOSTILE[name]
    many = max(1, size // (len(item) + 2))
    items = (item % number if "%" in item else item for number in range(many))
    return kind, (around % ",".join(items)).encode()


@pytest.mark.parametrize("name", sorted(HOSTILE.keys() - {"params"}))
def test_no_answer_takes_more_memory_than_is_counted_before(name):
    kind, line = hostile(name, 20_000)
    Allowance(10 * most_of(line)).decode(line, kind)
    tracemalloc.start()
    value = Allowance(10 * most_of(line)).decode(line, kind)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert value is not None
    # A map that grows is there twice for a moment.
    assert peak <= 1.25 * most_of(line) + 100_000


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_is_refused_or_takes_no_more_than_may_be_kept(name):
    body = 50_000
    for size in (2_000, 10_000, body):
        kind, line = hostile(name, size)
        allowance = Allowance(body)
        tracemalloc.start()
        try:
            value = allowance.decode(line, kind)
        except (TooLarge, ValueError):
            value = None
        kept = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert kept <= 1.1 * KEPT_PER_BYTE * body
        del value


def test_hostile_answers_take_no_more_of_a_process_than_one_may():
    """Each is as large as may be decoded, if it is of empty objects."""
    script = (
        "import resource, sys\n"
        "from tests.unit.nodes.test_decoding import HOSTILE, hostile\n"
        "from userspace_proxy.status.http_answer import ANSWER_BYTES, TooLarge\n"
        "from userspace_proxy_kubectl.nodes.decoding import Allowance\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "began = peak()\n"
        "for name in HOSTILE:\n"
        "    kind, line = hostile(name, ANSWER_BYTES // 40)\n"
        "    try:\n"
        "        Allowance(ANSWER_BYTES // 2).decode(line, kind)\n"
        "    except (TooLarge, ValueError):\n"
        "        pass\n"
        "print((peak() - began) << (0 if sys.platform == 'darwin' else 10))\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert int(found.stdout) < MEMORY_MAX


@pytest.mark.parametrize("endpoints", [0, 3, 100])
def test_answers_of_proxies_are_within_what_is_decoded_and_kept(endpoints):
    status = status_of(service_objects(50, endpoints=endpoints), "node-1")
    line = encode_answer(status)
    assert most_of(line) < DECODED_PER_BYTE * len(line)
    size = checked_size(read_answer(line), 1 << 40)
    assert 0.9 * len(line) < size < KEPT_PER_BYTE * len(line)
    assert Allowance(len(line)).decode(line, StatusFacts).ports


def test_what_lines_have_added_is_measured_once_it_may_be_too_much():
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


def test_a_map_of_times_and_parameters_is_looked_at_too():
    for part in ('"settings": {"at": -1}', '"ports": [{"notes": [{"params": {"at": 1e11}}]}]'):
        with pytest.raises(ValueError, match="a time in it is out of range"):
            Allowance(10_000).decode(b'{"version": "1", %s}' % part.encode(), StatusFacts)

from dataclasses import replace as replace_subject

import pytest

from tests.unit.status.views import make_endpoint, make_port
from userspace_proxy.diagnosis.clause import planned_of
from userspace_proxy.diagnosis.rules import decide
from userspace_proxy.explain import explain
from userspace_proxy.explain.on_node import node_notes

from .subjects import make_subject

LOOPBACK = "127.0.0.1:80"
REFUSED = make_endpoint(LOOPBACK, "refused: a loopback address is the node itself", False)
OTHER = make_endpoint("10.244.1.7:80")


def planned(*endpoints, on_node, **changes):
    """Return a planned Service, and how it would be planned on a node."""
    subject = make_subject(make_port(endpoints=endpoints), is_live=False)
    there = make_port(endpoints=on_node, **changes)
    _, verdict = decide(there)
    there.planned = planned_of(verdict.clauses)
    return replace_subject(subject, on_node=[there])


@pytest.mark.parametrize(
    ("endpoints", "on_node", "changes", "would"),
    [
        pytest.param(
            (),
            (REFUSED,),
            {"reason": "its only endpoint is not ready"},
            "refused: its only endpoint is not ready",
            id="refused",
        ),
        pytest.param((OTHER,), (OTHER, REFUSED), {}, "served by 1 endpoint", id="some"),
    ],
)
def test_what_a_node_would_refuse_is_a_note_and_ends_the_sentence(
    endpoints, on_node, changes, would
):
    subject = planned(make_endpoint(LOOPBACK), *endpoints, on_node=on_node, **changes)
    (note,) = node_notes(subject.ports[0], subject)
    would = f"on a node (--steering other than none) clients would be {would}"
    assert (note.level, note.what) == (None, would)
    assert note.details == ((None, f"{LOOPBACK}: {REFUSED.state}"),)
    assert explain(subject).sentence.endswith(f"; {would}")


def test_a_service_that_is_the_same_on_a_node_has_no_note():
    subject = planned(OTHER, on_node=(OTHER,))
    assert [*node_notes(subject.ports[0], subject)] == []
    assert explain(subject).sentence == "Clients would be served by 1 endpoint"


def test_only_the_family_of_the_client_is_said():
    subject = planned(make_endpoint(LOOPBACK), on_node=(REFUSED,), reason="no")
    assert "on a node" not in explain(subject, client="fd00::1").sentence

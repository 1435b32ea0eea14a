"""What is wrong with a Service's objects is in the facts about its ports, for all observers."""

import pytest

from userspace_proxy.facts import Level, PortState, RejectedFacts, SourceFacts, StateFacts
from userspace_proxy.model import Cause, CauseCode, DataPath
from userspace_proxy.policy.causes import NOTES_MAX
from userspace_proxy.status.path_words import PathView
from userspace_proxy.status.service_mistakes import with_mistakes

from .views import make_health_check, make_port, replace

LINE = "m/web.yaml:13: metadata.labels: kubernetes.io/service-name is missing"
NO_SLICE = Cause(CauseCode.NO_SLICE, "no EndpointSlice belongs to shop/web")
EMPTY = replace(make_port(endpoints=()), cause=NO_SLICE)
WEB = ("shop/web",)


def given(*ports, rejected=(), health_checks=()):
    source = SourceFacts(rejected=rejected)
    return with_mistakes(ports, source, health_checks)


def test_a_rejected_slice_is_the_cause_of_a_port_without_one():
    (port,) = given(EMPTY, rejected=[RejectedFacts(LINE, "EndpointSlice shop/web-1", WEB)])
    said = f"EndpointSlice shop/web-1 is rejected: {LINE}"
    assert (port.state.level, port.state.sentence) == (
        Level.ATTENTION, f"Clients are refused: {said}",
    )  # fmt: skip
    assert (str(port.cause), port.notes, port.plan) == (said, (), EMPTY.plan)
    assert port.state.way_out == "Correct it: the Service has no other one"
    assert EMPTY.cause is NO_SLICE, "what is shown never changes"


@pytest.mark.parametrize("name", ["web-1", "web", "web-1-x"])
def test_a_rejected_slice_without_a_service_is_one_of_that_which_it_is_named_after(name):
    (port,) = given(EMPTY, rejected=[RejectedFacts(LINE, f"EndpointSlice shop/{name}")])
    which = f"EndpointSlice shop/{name}, by its name a slice of it,"
    assert port.state.sentence == f"Clients are refused: {which} is rejected: {LINE}"
    assert port.state.way_out.endswith(" kubernetes.io/service-name: web")


def test_a_slice_that_names_its_service_wins_over_one_that_does_not():
    unnamed = RejectedFacts(LINE, "EndpointSlice shop/web-1")
    named = RejectedFacts(LINE, "EndpointSlice shop/abc", WEB)
    (port,) = given(EMPTY, rejected=[unnamed, named])
    assert str(port.cause) == f"EndpointSlice shop/abc is rejected: {LINE}"


@pytest.mark.parametrize(
    ("rejected", "port"),
    [
        pytest.param("EndpointSlice shop/web-1", make_port(), id="it-has-slices"),
        pytest.param("EndpointSlice shop/webcam-1", EMPTY, id="another-name"),
        pytest.param("EndpointSlice test/web-1", EMPTY, id="another-namespace"),
        pytest.param("Service shop/web-1", EMPTY, id="another-kind"),
    ],
)
def test_other_rejected_objects_change_nothing(rejected, port):
    (same,) = given(port, rejected=[RejectedFacts(LINE, rejected)])
    assert same is port


def test_a_mistake_of_a_service_that_is_served_is_a_note_at_its_first_port():
    double = RejectedFacts("m/b.yaml:1: Service shop/web is already defined in m/a.yaml:1", "", WEB)
    ports = make_port(), make_port(port="metrics"), make_port("cart")
    first, *others = given(*ports, rejected=[double])
    assert (first.state.level, first.state.word) == (Level.ATTENTION, "served")
    assert first.state.sentence == f"Served by 2 endpoints; {double.line}"
    assert first.state.causes[0].sentence == double.line
    assert all(one is port for one, port in zip(others, ports[1:], strict=True))


def test_mistakes_precede_the_notes_of_the_plan_and_have_a_bound():
    items = [RejectedFacts(f"m/web.yaml:{i}: no", "Service shop/web", WEB) for i in range(99)]
    (port,) = given(make_port(notes=("a is unknown",)), rejected=items)
    assert len(port.notes) == NOTES_MAX + 2
    assert str(port.notes[0]) == "Service shop/web is rejected: m/web.yaml:0: no"
    assert str(port.notes[-1]) == "a is unknown"


def test_a_note_of_the_plan_gives_way_to_the_same_with_its_place():
    taken = "spec.healthCheckNodePort: 30202/TCP is already named by shop/cart"
    item = RejectedFacts(f"m/web.yaml:3: {taken}", services=WEB)
    (port,) = given(make_port(notes=(taken, "a is unknown")), rejected=[item])
    assert [str(note) for note in port.notes] == [item.line, "a is unknown"]


def test_what_is_kept_for_mistakes_of_others_is_a_note_with_the_first_of_them():
    items = [RejectedFacts(f"m/web.yaml:{i}: no", keeps=WEB) for i in (3, 7)]
    (port,) = given(make_port(), rejected=items)
    (note,) = port.notes
    assert note.sentence.startswith("an object of it was removed from its file")
    assert note.hint == "Repair that file, first at m/web.yaml:3"


def test_a_health_check_that_is_not_served_is_a_note_of_its_service():
    taken = "cannot serve the health check on 0.0.0.0:30201: in use by nginx (pid 7)"
    checks = (
        make_health_check("shop/web", 30201, 1, taken),
        make_health_check("shop/cart", 30202, 1),
    )
    cart = make_port("cart")
    web, same = given(make_port(), cart, health_checks=checks)
    assert web.state.sentence == f"Served by 2 endpoints; {taken}"
    assert web.state.way_out.startswith("Load balancers may treat this node as one without")
    assert same is cart


def test_a_port_that_is_no_proxys_is_judged_as_its_maker_judges():
    planned = StateFacts(Level.OK, PortState.SERVED)
    source = SourceFacts(rejected=[RejectedFacts(LINE, "Service shop/web", WEB)])
    (port,) = with_mistakes([make_port()], source, judge=lambda port: planned)
    assert port.state is planned


def test_a_note_keeps_what_is_known_of_the_path():
    kernel = replace(make_port(), path=PathView(DataPath.KERNEL, kernel_connections=7))
    (port,) = given(kernel, rejected=[RejectedFacts(LINE, "Service shop/web", WEB)])
    assert (port.path, port.kernel_connections) == (DataPath.KERNEL, 7)

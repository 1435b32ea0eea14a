import pytest

from tests.unit.status.views import make_health_check, make_ignored, make_port, replace
from userspace_proxy.explain import explain
from userspace_proxy.explain.mistakes import mistakes
from userspace_proxy.facts import Level, RejectedFacts, SourceFacts
from userspace_proxy.model import Cause, CauseCode

from .subjects import make_subject

UNLABELLED = "m/shop.yaml:21: metadata.labels: kubernetes.io/service-name is missing"


def made_of(*rejected, port=None, service="shop/web"):
    """Return a Service of a source that has rejected objects."""
    lines = [item.line for item in rejected]
    source = SourceFacts("manifests", "m", is_synced=True, problems=lines, rejected=rejected)
    ports = () if port is None else (port,)
    return make_subject(*ports, service=service, source=source)


def test_a_service_that_is_kept_for_mistakes_of_others_is_served_and_has_a_note():
    keeper = RejectedFacts(UNLABELLED, "EndpointSlice shop/cart-1", keeps=("shop/web",))
    kept = "an object of it was removed from its file, and is kept while the file has mistakes"
    subject = made_of(keeper)
    (note,) = mistakes(subject)
    assert (note.level, note.what) == (Level.ATTENTION, kept)
    assert note.hint == "Repair that file, first at m/shop.yaml:21"
    assert explain(subject).sentence == f"Clients are served by 2 endpoints; {kept}"
    refused = made_of(keeper, port=make_port(endpoints=(), reason="no pod is ready"))
    assert explain(refused).sentence == f"Clients are refused: no pod is ready; also: {kept}"


def test_a_health_check_that_is_not_served_is_a_note_of_its_service_alone():
    taken = "cannot serve the health check on 0.0.0.0:30201: in use by nginx (pid 7)"
    checks = [make_health_check(f"shop/{name}", 30201, 1, taken) for name in ("web", "cart")]
    checks.append(make_health_check("shop/web", 30202, 1))
    subject = make_subject(health_checks=checks)
    (note,) = mistakes(subject)
    assert (note.level, note.what) == (Level.ATTENTION, taken)
    assert note.hint.startswith("Load balancers may treat this node as one without endpoints")
    assert explain(subject).sentence == f"Clients are served by 2 endpoints; {taken}"


@pytest.mark.parametrize(("is_conflict", "mark"), [(False, None), (True, Level.TROUBLE)])
def test_a_service_that_is_ignored_by_design_has_a_neutral_mark(is_conflict, mark):
    ignored = (make_ignored("shop/db", "", "it is headless", is_conflict=is_conflict),)
    explanation = explain(make_subject(service="shop/db", ignored=ignored))
    assert explanation.parts[0].steps[0].mark is mark
    assert explanation.sentence == "It is not served: it is headless"


WITHOUT_SLICE = replace(make_port(endpoints=()), cause=Cause(CauseCode.NO_SLICE, "no slice"))


def test_a_rejected_slice_that_names_no_service_is_the_first_line_of_the_one_it_is_named_after():
    subject = made_of(RejectedFacts(UNLABELLED, "EndpointSlice shop/web-1"), port=WITHOUT_SLICE)
    said = f"EndpointSlice shop/web-1, by its name a slice of it, is rejected: {UNLABELLED}"
    explanation = explain(subject)
    assert explanation.sentence == explanation.parts[0].steps[0].what == said
    assert explanation.parts[0].steps[0].hint.endswith(" kubernetes.io/service-name: web")
    assert UNLABELLED not in [step.what for step in explanation.parts[1].steps]
    assert [*subject.others_rejected] == []


@pytest.mark.parametrize(
    ("rejected", "port"),
    [
        pytest.param("EndpointSlice shop/web-1", make_port(), id="it-has-slices"),
        pytest.param("EndpointSlice shop/webcam-1", WITHOUT_SLICE, id="another-name"),
        pytest.param("EndpointSlice test/web-1", WITHOUT_SLICE, id="another-namespace"),
        pytest.param("Service shop/web-1", WITHOUT_SLICE, id="another-kind"),
    ],
)
def test_other_rejected_objects_are_of_no_concern(rejected, port):
    subject = made_of(RejectedFacts(UNLABELLED, rejected), port=port)
    assert [*mistakes(subject)] == []
    assert len(subject.others_rejected) == 1


def test_a_problem_has_the_mistake_that_may_be_its_reason_beside_it():
    refused = make_port(endpoints=(), reason="none is ready", notes=("a is unknown", "b"))
    said = explain(make_subject(refused)).sentence
    assert said == "Clients are refused: none is ready; also: a is unknown; 1 further note"

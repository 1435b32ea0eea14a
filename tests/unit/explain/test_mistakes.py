import pytest

from tests.unit.status.views import make_health_check, make_ignored, make_port, replace
from userspace_proxy.causes.cause import as_read
from userspace_proxy.explain import explain
from userspace_proxy.explain.mistakes import mistakes
from userspace_proxy.facts import Level, RejectedFacts, SourceFacts
from userspace_proxy.model import CauseCode

from .subjects import make_subject

UNLABELLED = "m/shop.yaml:21: metadata.labels: kubernetes.io/service-name is missing"


def made_of(*rejected, port=None, service="shop/web"):
    """Return a Service of a source that has rejected objects."""
    lines = [item.line for item in rejected]
    source = SourceFacts("manifests", "m", is_synced=True, problems=lines, rejected=rejected)
    return make_subject(port or make_port(), service=service, source=source)


@pytest.mark.parametrize(
    ("port", "sentence"),
    [
        (make_port(), "Served by 2 endpoints; "),
        (
            make_port(endpoints=(), reason="no pod is ready"),
            "Clients are refused: no pod is ready; also: ",
        ),
    ],
)
def test_the_sentence_about_a_mistake_in_an_object_is_that_of_its_port(port, sentence):
    rejected = RejectedFacts(UNLABELLED, "Service shop/web", services=("shop/web",))
    subject = made_of(rejected, port=port)
    said = explain(subject).sentence
    assert said == f"{sentence}Service shop/web is rejected: {UNLABELLED}"
    assert [*mistakes(subject)] == []


def test_a_health_check_that_is_not_served_has_what_follows_from_it():
    taken = "cannot serve the health check on 0.0.0.0:30201: in use by nginx (pid 7)"
    explanation = explain(
        make_subject(health_checks=[make_health_check("shop/web", 30201, 1, taken)])
    )
    assert explanation.sentence == f"Served by 2 endpoints; {taken}"
    hints = [step.hint for part in explanation.parts for step in part.steps if step.hint]
    assert hints[0].startswith("Load balancers may treat this node as one without endpoints")


def test_a_service_without_a_port_has_its_mistakes_as_steps():
    rejected = RejectedFacts(UNLABELLED, "Service shop/cart", services=("shop/cart",))
    (step,) = mistakes(made_of(rejected, service="shop/cart"))
    said = f"Service shop/cart is rejected: {UNLABELLED}"
    assert (step.level, step.what) == (Level.TROUBLE, said)
    assert explain(made_of(rejected, service="shop/cart")).sentence == said


@pytest.mark.parametrize(("is_conflict", "mark"), [(False, None), (True, Level.TROUBLE)])
def test_a_service_that_is_ignored_by_design_has_a_neutral_mark(is_conflict, mark):
    ignored = (make_ignored("shop/db", "", "it is headless", is_conflict=is_conflict),)
    explanation = explain(make_subject(service="shop/db", ignored=ignored))
    assert explanation.parts[0].steps[0].mark is mark
    assert explanation.sentence == "It is not served: it is headless"


WITHOUT_SLICE = replace(make_port(endpoints=()), cause=as_read(CauseCode.NO_SLICE, "no slice"))


def test_a_rejected_slice_that_names_no_service_is_the_first_line_of_the_one_it_is_named_after():
    subject = made_of(
        RejectedFacts(UNLABELLED, "EndpointSlice shop/web-1", "EndpointSlice", "shop", "web-1"),
        port=WITHOUT_SLICE,
    )
    said = f"EndpointSlice shop/web-1, by its name a slice of it, is rejected: {UNLABELLED}"
    assert explain(subject).sentence == f"Clients are refused: {said}"
    assert [*subject.others_rejected] == [*mistakes(subject)] == []


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


def test_a_file_that_can_not_be_read_may_be_about_any_service():
    line = "web.yaml:23: not YAML: found unexpected end of stream"
    subject = made_of(RejectedFacts(line), port=WITHOUT_SLICE)
    said = [step.what for part in explain(subject).parts for step in part.steps]
    assert f"Not read: {line}" in said
    assert not any("of no concern" in one for one in said)


def test_a_problem_has_the_mistake_that_may_be_its_reason_beside_it():
    refused = make_port(endpoints=(), reason="none is ready", notes=("a is unknown", "b"))
    said = explain(make_subject(refused)).sentence
    assert said == "Clients are refused: none is ready; also: a is unknown; 1 further note"

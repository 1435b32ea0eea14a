from tests.unit.status.views import make_port
from userspace_proxy.explain import explain
from userspace_proxy.explain.mistakes import mistakes
from userspace_proxy.facts import Level, RejectedFacts, SourceFacts

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
    assert note.hint == f"Repair that file: {UNLABELLED}"
    assert explain(subject).sentence == f"Clients are served by 2 endpoints; {kept}"
    refused = made_of(keeper, port=make_port(endpoints=(), reason="no pod is ready"))
    assert explain(refused).sentence == "Clients are refused: no pod is ready; 1 further note"

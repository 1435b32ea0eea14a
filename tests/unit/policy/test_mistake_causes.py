"""The sentences about mistakes in a Service's own objects."""

import pytest

from userspace_proxy.model import CauseCode, ServiceKey, ServicePort, SliceKey
from userspace_proxy.policy.mistake_causes import (
    health_check_fails,
    object_kept,
    port_unnumbered,
    rejected,
    slice_rejected,
)

LINE = "m/web.yaml:13: endpoints[0].addresses[0]: fd00::1 is not IPv4"


@pytest.mark.parametrize(
    ("cause", "sentence", "hint"),
    [
        pytest.param(rejected("", LINE), LINE, "", id="the-line-names-the-object"),
        pytest.param(
            rejected("Service shop/web", LINE),
            f"Service shop/web is rejected: {LINE}",
            "Correct it: an object that was valid before keeps its last form until then",
            id="an-object",
        ),
        pytest.param(
            object_kept(LINE),
            "an object of it was removed from its file, and is kept while the file has mistakes",
            "Repair that file, first at m/web.yaml:13",
            id="a-removed-object",
        ),
        pytest.param(
            health_check_fails("cannot serve the health check"),
            "cannot serve the health check",
            "Load balancers may treat this node as one without endpoints; it is retried every "
            "second",
            id="a-health-check",
        ),
    ],
)
def test_a_note_has_what_is_not_in_force(cause, sentence, hint):
    assert (cause.code, str(cause), cause.hint) == (CauseCode.NOT_FOLLOWED, sentence, hint)


@pytest.mark.parametrize(
    ("unnamed_for", "which", "hint"),
    [
        ("", "EndpointSlice shop/web-1", "Correct it: the Service has no other one"),
        (
            "web",
            "EndpointSlice shop/web-1, by its name a slice of it,",
            "If it is one, give it the label kubernetes.io/service-name: web",
        ),
    ],
)
def test_a_rejected_slice_is_why_there_is_none(unnamed_for, which, hint):
    cause = slice_rejected("EndpointSlice shop/web-1", LINE, unnamed_for=unnamed_for)
    assert (cause.code, cause.object) == (CauseCode.NO_SLICE, "EndpointSlice shop/web-1")
    assert (str(cause), cause.hint) == (f"{which} is rejected: {LINE}", hint)


@pytest.mark.parametrize(
    ("name", "which"), [("http", 'port "http"'), ("", "the unnamed port")], ids=["named", "unnamed"]
)
def test_a_port_without_a_number_is_named_with_its_slice(name, which):
    port = ServicePort(name, 80, "TCP")
    cause = port_unnumbered(ServiceKey("shop", "web"), port, SliceKey("shop", "web-1"))
    assert cause.sentence == f"{which} of EndpointSlice shop/web-1 has no number"
    assert cause.hint == "Write its number into the EndpointSlice, which means all ports without it"
    assert (cause.code, cause.object) == (
        CauseCode.PORT_NAME_MISSING,
        "EndpointSlices of shop/web",
    )

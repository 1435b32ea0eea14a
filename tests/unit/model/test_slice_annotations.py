import pytest

from userspace_proxy.model.notes import NoteKind
from userspace_proxy.model.quoting import quoted
from userspace_proxy.model.slice_annotations import Preference, read_preference

WEIGHT, PRIORITY = "userspace-proxy.io/weight", "userspace-proxy.io/priority"
CILIUM = "service.cilium.io/weight"


@pytest.mark.parametrize(
    ("annotations", "weight", "priority"),
    [
        pytest.param(None, 100, 0, id="null"),
        pytest.param({}, 100, 0, id="none"),
        pytest.param({WEIGHT: None, PRIORITY: ""}, 100, 0, id="empty"),
        pytest.param({WEIGHT: "0"}, 0, 0, id="no-weight"),
        pytest.param({WEIGHT: "65535", PRIORITY: "1"}, 65535, 1, id="both"),
        pytest.param({CILIUM: "7"}, 7, 0, id="ciliums"),
        pytest.param({CILIUM: "7", WEIGHT: "8"}, 8, 0, id="our-own-comes-first"),
    ],
)
def test_weight_and_priority_are_those_of_the_annotations(annotations, weight, priority):
    assert read_preference(annotations) == Preference(weight, priority)


@pytest.mark.parametrize("key", [WEIGHT, PRIORITY, CILIUM])
@pytest.mark.parametrize("value", ["-1", "65536", "1.5", "50%", "ten", "٣", "9" * 5000])
def test_a_wrong_value_changes_nothing_and_is_a_note(key, value):
    weight, priority, notes = read_preference({key: value})
    assert (weight, priority) == (100, 0)
    shown = quoted(value)
    assert notes == (
        NoteKind.ANNOTATION_WRONG(key, f"{shown} is not in 0–65535", "it has no effect"),
    )


def test_an_annotation_of_services_has_no_effect_on_a_slice():
    key = "userspace-proxy.io/hold"
    assert read_preference({key: "60s"}).notes == (NoteKind.ANNOTATION_MISPLACED(key, "Services"),)

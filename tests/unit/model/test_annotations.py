import pytest

from userspace_proxy.model import (
    Balance,
    Handling,
    Hold,
    ProxyProtocol,
    Workload,
    WorkloadKind,
)
from userspace_proxy.model.annotations import (
    ANNOTATIONS,
    DOMAIN,
    TEXT_MAX,
    Preference,
    read_handling,
    read_preference,
)
from userspace_proxy.model.notes import NoteKind
from userspace_proxy.model.quoting import quoted

from ..refusals import why

AWAKE = {f"{DOMAIN}hold": "60s", f"{DOMAIN}wake": "deployment/web"}
NEED_OTHERS = ("wake", "idle-after")
DEPLOYMENT, STATEFUL_SET = WorkloadKind.DEPLOYMENT, WorkloadKind.STATEFUL_SET


def annotation_of(name):
    (found,) = (one for one in ANNOTATIONS if one.name == name)
    return found


KNOWN = tuple(annotation.key for annotation in ANNOTATIONS)
wrong, unknown = NoteKind.ANNOTATION_WRONG, NoteKind.ANNOTATION_UNKNOWN


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        pytest.param("balance", None, Balance.ROUND_ROBIN, id="null"),
        pytest.param("balance", "", Balance.ROUND_ROBIN, id="empty"),
        pytest.param("balance", "round-robin", Balance.ROUND_ROBIN, id="rr"),
        pytest.param("balance", "least-connections", Balance.LEAST_CONNECTIONS, id="lc"),
        pytest.param("balance", "power-of-two-choices", Balance.POWER_OF_TWO_CHOICES, id="p2c"),
        pytest.param("balance", "source-hash", Balance.SOURCE_HASH, id="source-hash"),
        pytest.param("preserve-client-address", None, True, id="addresses-null"),
        pytest.param("preserve-client-address", "auto", True, id="addresses-auto"),
        pytest.param("preserve-client-address", "never", False, id="addresses-never"),
        pytest.param("hold", "", None, id="hold-empty"),
        pytest.param("hold", "60s", Hold(60, 1000), id="hold-seconds"),
        pytest.param("hold", "1m30s,16", Hold(90, 16), id="hold-and-connections"),
        pytest.param("hold", "1h, 100000", Hold(3600, 100_000), id="hold-the-most"),
        pytest.param("on-endpoint-removal", None, None, id="removal-null"),
        pytest.param("on-endpoint-removal", "keep", None, id="removal-keep"),
        pytest.param("on-endpoint-removal", "30s", 30.0, id="removal-seconds"),
        pytest.param("on-endpoint-removal", "0s", 0.0, id="removal-at-once"),
        pytest.param("slow-start", "", 0.0, id="slow-start-empty"),
        pytest.param("slow-start", "1s", 1.0, id="slow-start-shortest"),
        pytest.param("slow-start", "1h", 3600.0, id="slow-start-longest"),
        pytest.param("proxy-protocol", None, None, id="header-null"),
        pytest.param("proxy-protocol", "v1", ProxyProtocol.V1, id="header-v1"),
        pytest.param("proxy-protocol", "v2", ProxyProtocol.V2, id="header-v2"),
        pytest.param("max-connections", "100", 100, id="max-connections"),
        pytest.param("wake", "deployment/web.v1", Workload(DEPLOYMENT, "web.v1"), id="deployment"),
        pytest.param("wake", "statefulset/web", Workload(STATEFUL_SET, "web"), id="stateful-set"),
        pytest.param("idle-after", "1s", 1.0, id="idle-shortest"),
        pytest.param("idle-after", "24h", 86400.0, id="idle-longest"),
    ],
)
def test_an_annotation_value_is_parsed(name, value, read):
    key = f"{DOMAIN}{name}"
    handling, notes = read_handling({**(AWAKE if name in NEED_OTHERS else {}), key: value})
    assert (getattr(handling, annotation_of(name).field), notes) == (read, ())


@pytest.mark.parametrize(
    ("name", "values", "end"),
    [
        ("balance", ["fastest"], "least-connections, power-of-two-choices, source-hash"),
        ("preserve-client-address", ["no"], "auto, never"),
        ("proxy-protocol", ["v3"], "v1, v2"),
        ("slow-start", ["0s", "2h"], "1s–1h"),
        ("idle-after", ["0", "500ms", "25h"], "1s–24h"),
        ("max-connections", ["0", "-1", "many", "1000001", "1.5"], "1–1000000"),
        ("wake", ["web", "pod/web", "deployment/", "deployment/Web", "deployment/a/b"], "NAME)"),
    ],
)
def test_an_invalid_annotation_value_gets_a_note_and_has_no_effect(name, values, end):
    annotation = annotation_of(name)
    for value in values:
        handling, notes = read_handling({**AWAKE, annotation.key: value})
        assert getattr(handling, annotation.field) == getattr(Handling(), annotation.field)
        problem = why(annotation.read, value)
        assert problem.startswith(f"{value!r} is not ")
        assert problem.endswith(end)
        assert notes == (wrong(annotation.key, problem, annotation.otherwise),)


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("userspace-proxy.io/balanc", "userspace-proxy.io/balance"),
        ("userspace-proxy/balance", "userspace-proxy.io/balance"),
        ("userspace-proxy.io/xyzzy", ""),
        ("userspace-proxy.io/fault", ""),
        ("userspace-proxy-xyzzy", ""),
    ],
)
def test_an_unknown_annotation_with_a_prefix_like_the_proxys_gets_a_note(key, meant):
    assert read_handling({key: "x"})[1] == (unknown(key, meant, KNOWN),)


def test_an_annotation_with_control_characters_is_quoted():
    assert read_handling({"userspace-proxy\n": "x"})[1] == (
        unknown("'userspace-proxy\\n'", "", KNOWN),
    )


def test_a_slice_annotation_has_no_effect_on_a_service():
    key = "userspace-proxy.io/priority"
    assert read_handling({key: "x"})[1] == (NoteKind.ANNOTATION_MISPLACED(key, "EndpointSlices"),)


def test_annotations_of_other_programs_get_no_note():
    assert read_handling({"example.io/balance": "x", "balance": "y"})[1] == ()


def test_only_some_of_many_unknown_annotations_get_a_note():
    annotations = {f"userspace-proxy.io/{n}": "x" for n in range(9)}
    assert len(read_handling(annotations)[1]) == 5


HOLD = "userspace-proxy.io/hold"


@pytest.mark.parametrize(
    ("value", "part", "allowed"),
    [
        pytest.param("0", "0", "1s–1h", id="no-time"),
        pytest.param("500ms", "500ms", "1s–1h", id="too-short"),
        pytest.param("2h,16", "2h", "1s–1h", id="too-long"),
        pytest.param("60s,", "", "1–100000", id="no-number"),
        pytest.param("60s,0", "0", "1–100000", id="none"),
        pytest.param("60s,1e3", "1e3", "1–100000", id="not-a-number"),
        pytest.param("60s,100001", "100001", "1–100000", id="too-many"),
        pytest.param("60s,200000", "200000", "1–100000", id="twice-as-many"),
    ],
)
def test_an_invalid_hold_annotation_gets_a_note_and_has_no_effect(value, part, allowed):
    handling, (note,) = read_handling({HOLD: value})
    problem = note.params[1]
    assert (handling.hold, note) == (None, wrong(HOLD, problem, annotation_of("hold").otherwise))
    assert problem.startswith(f"{part!r} is not ")
    assert problem.endswith(f" in {allowed}")


SLOW_START = f"{DOMAIN}slow-start"


def test_slow_start_has_no_effect_with_source_hash():
    handling, notes = read_handling(
        {SLOW_START: "30s", "userspace-proxy.io/balance": "source-hash"}
    )
    assert (handling.balance, handling.slow_start_s) == (Balance.SOURCE_HASH, 0.0)
    assert notes == (NoteKind.SLOW_START_UNUSED(),)


def test_the_annotation_wake_without_hold_gets_a_note():
    _, notes = read_handling({"userspace-proxy.io/wake": "deployment/web"})
    assert notes == (NoteKind.WAKE_WITHOUT_HOLD("nothing is woken"),)


(NOT_TO_ZERO,) = (one.otherwise for one in ANNOTATIONS if one.name == "idle-after")
IDLE_AFTER = f"{DOMAIN}idle-after"


def test_the_annotation_idle_after_without_a_workload_gets_a_note():
    _, notes = read_handling({"userspace-proxy.io/hold": "60s", IDLE_AFTER: "10m"})
    assert notes == (NoteKind.IDLE_WITHOUT_WAKE(NOT_TO_ZERO),)


@pytest.mark.parametrize("annotation", ANNOTATIONS, ids=lambda annotation: annotation.name)
def test_an_overlong_annotation_gets_a_note(annotation):
    long = "random;" * TEXT_MAX
    handling, notes = read_handling({annotation.key: long})
    assert handling == Handling()
    problem = f"it has {len(long)} characters, and at most {TEXT_MAX} are read"
    assert notes == (wrong(annotation.key, problem, annotation.otherwise),)


def test_an_annotation_of_the_maximum_length_is_parsed():
    text = "1m".ljust(TEXT_MAX)
    assert read_handling({"userspace-proxy.io/hold": text})[0].hold == Hold(60.0)


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
        pytest.param({CILIUM: "7"}, 7, 0, id="ciliums-key"),
        pytest.param({CILIUM: "7", WEIGHT: "8"}, 8, 0, id="own-key-has-precedence"),
    ],
)
def test_weight_and_priority_are_parsed_from_annotations(annotations, weight, priority):
    assert read_preference(annotations) == Preference(weight, priority)


@pytest.mark.parametrize("key", [WEIGHT, PRIORITY, CILIUM])
@pytest.mark.parametrize(
    "value", ["-1", "65536", "1.5", "50%", "ten", "٣", "9" * 5000], ids=lambda value: value[:9]
)
def test_an_invalid_weight_or_priority_gets_a_note_and_has_no_effect(key, value):
    weight, priority, notes = read_preference({key: value})
    assert (weight, priority) == (100, 0)
    shown = quoted(value)
    assert notes == (
        NoteKind.ANNOTATION_WRONG(key, f"{shown} is not in 0–65535", "it has no effect"),
    )


def test_a_service_annotation_has_no_effect_on_a_slice():
    key = "userspace-proxy.io/hold"
    assert read_preference({key: "60s"}).notes == (NoteKind.ANNOTATION_MISPLACED(key, "Services"),)

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
    read_handling,
    read_max_connections,
    read_workload,
)
from userspace_proxy.model.durations import parse_duration
from userspace_proxy.model.notes import NoteKind

from ..refusals import why


@pytest.mark.parametrize(
    ("value", "balance"),
    [
        pytest.param(None, Balance.ROUND_ROBIN, id="null"),
        pytest.param("", Balance.ROUND_ROBIN, id="empty"),
        pytest.param("round-robin", Balance.ROUND_ROBIN, id="rr"),
        pytest.param("least-connections", Balance.LEAST_CONNECTIONS, id="lc"),
        pytest.param("power-of-two-choices", Balance.POWER_OF_TWO_CHOICES, id="p2c"),
        pytest.param("source-hash", Balance.SOURCE_HASH, id="source-hash"),
    ],
)
def test_balance_is_that_of_the_annotation(value, balance):
    handling, notes = read_handling({"userspace-proxy.io/balance": value})
    assert (handling.balance, notes) == (balance, ())


def test_an_unknown_balance_is_round_robin_with_a_note():
    handling, notes = read_handling({"userspace-proxy.io/balance": "fastest"})
    assert handling.balance is Balance.ROUND_ROBIN
    choices = "round-robin, random, least-connections, power-of-two-choices, source-hash"
    problem = f"'fastest' is not one of {choices}"
    assert notes == (wrong("userspace-proxy.io/balance", problem, "round-robin is used"),)


KNOWN = tuple(annotation.key for annotation in ANNOTATIONS)
wrong, unknown = NoteKind.ANNOTATION_WRONG, NoteKind.ANNOTATION_UNKNOWN


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("userspace-proxy.io/balanc", "userspace-proxy.io/balance"),
        ("userspace-proxy/balance", "userspace-proxy.io/balance"),
        ("userspace-proxy.io/xyzzy", ""),
        # An annotation that had put faults in force.
        ("userspace-proxy.io/fault", ""),
        ("userspace-proxy-xyzzy", ""),
    ],
)
def test_an_annotation_that_was_probably_meant_for_this_proxy_is_a_note(key, meant):
    assert read_handling({key: "x"})[1] == (unknown(key, meant, KNOWN),)


def test_an_annotation_with_control_characters_is_quoted():
    assert read_handling({"userspace-proxy\n": "x"})[1] == (
        unknown("'userspace-proxy\\n'", "", KNOWN),
    )


def test_an_annotation_of_slices_has_no_effect_on_a_service():
    key = "userspace-proxy.io/priority"
    assert read_handling({key: "x"})[1] == (NoteKind.ANNOTATION_MISPLACED(key, "EndpointSlices"),)


def test_annotations_for_other_programs_are_no_notes():
    assert read_handling({"example.io/balance": "x", "balance": "y"})[1] == ()


def test_of_very_many_unknown_annotations_some_are_noted():
    annotations = {f"userspace-proxy.io/{n}": "x" for n in range(9)}
    assert len(read_handling(annotations)[1]) == 5


@pytest.mark.parametrize(
    ("value", "is_kept"), [(None, True), ("", True), ("auto", True), ("never", False)]
)
def test_client_addresses_are_preserved_unless_the_annotation_is_never(value, is_kept):
    handling, notes = read_handling({f"{DOMAIN}preserve-client-address": value})
    assert (handling.keeps_clients, notes) == (is_kept, ())


def test_client_addresses_are_preserved_with_a_note_if_the_annotation_is_unknown():
    handling, notes = read_handling({f"{DOMAIN}preserve-client-address": "no"})
    assert handling.keeps_clients
    key = f"{DOMAIN}preserve-client-address"
    assert notes == (wrong(key, "'no' is not one of auto, never", "auto is used"),)


HOLD = "userspace-proxy.io/hold"


@pytest.mark.parametrize(
    ("value", "hold"),
    [
        pytest.param("", None, id="empty"),
        pytest.param("60s", Hold(60, 1000), id="seconds"),
        pytest.param("1m30s,16", Hold(90, 16), id="and-connections"),
        pytest.param("1h, 100000", Hold(3600, 100_000), id="the-most"),
    ],
)
def test_hold_is_a_time_and_a_number_of_connections(value, hold):
    handling, notes = read_handling({HOLD: value})
    assert (handling.hold, notes) == (hold, ())


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
def test_a_wrong_hold_refuses_clients_with_a_note(value, part, allowed):
    handling, (note,) = read_handling({HOLD: value})
    key, problem, otherwise = note.params
    assert (handling.hold, note.kind, key) == (None, wrong, HOLD)
    assert problem.startswith(f"{part!r} is not ")
    assert problem.endswith(f" in {allowed}")
    assert otherwise == "clients are refused while no endpoint is usable"


@pytest.mark.parametrize("name", ["hold", "idle-after", "on-endpoint-removal", "slow-start"])
@pytest.mark.parametrize("value", ["30", "-1s", "soon"])
def test_what_is_no_duration_changes_nothing_with_a_note(name, value):
    (annotation,) = (one for one in ANNOTATIONS if one.name == name)
    handling, notes = read_handling({**AWAKE, annotation.key: value})
    assert getattr(handling, annotation.field) == getattr(Handling(), annotation.field)
    assert notes[0] == wrong(annotation.key, why(parse_duration, value), annotation.otherwise)


@pytest.mark.parametrize(
    ("value", "seconds"), [(None, None), ("keep", None), ("30s", 30.0), ("0s", 0.0), ("1m", 60.0)]
)
def test_connections_to_endpoints_that_have_left_end_after_the_time_of_the_annotation(
    value, seconds
):
    handling, notes = read_handling({"userspace-proxy.io/on-endpoint-removal": value})
    assert (handling.removal_s, notes) == (seconds, ())


SLOW_START = f"{DOMAIN}slow-start"


@pytest.mark.parametrize("value", [None, "", "30s", "1s", "1h"])
def test_slow_start_is_a_time(value):
    handling, notes = read_handling({SLOW_START: value})
    expected = {"30s": 30.0, "1s": 1.0, "1h": 3600.0}.get(value, 0.0)
    assert (handling.slow_start_s, notes) == (expected, ())


@pytest.mark.parametrize("value", ["0s", "2h"])
def test_a_wrong_slow_start_changes_nothing_with_a_note(value):
    handling, (note,) = read_handling({SLOW_START: value})
    assert handling.slow_start_s == 0.0
    key, _, otherwise = note.params
    assert note.kind is NoteKind.ANNOTATION_WRONG
    assert (key, otherwise) == (SLOW_START, "new endpoints get full shares at once")


def test_slow_start_has_no_effect_with_source_hash():
    handling, notes = read_handling(
        {SLOW_START: "30s", "userspace-proxy.io/balance": "source-hash"}
    )
    assert (handling.balance, handling.slow_start_s) == (Balance.SOURCE_HASH, 0.0)
    assert notes == (NoteKind.SLOW_START_UNUSED(),)


@pytest.mark.parametrize(
    ("value", "version"), [(None, None), ("v1", ProxyProtocol.V1), ("v2", ProxyProtocol.V2)]
)
def test_endpoints_get_the_header_of_the_annotation(value, version):
    handling, notes = read_handling({f"{DOMAIN}proxy-protocol": value})
    assert (handling.proxy_protocol, notes) == (version, ())


def test_endpoints_get_no_header_with_a_note_if_there_is_no_such_version():
    handling, notes = read_handling({f"{DOMAIN}proxy-protocol": "v3"})
    assert handling.proxy_protocol is None
    key = f"{DOMAIN}proxy-protocol"
    assert notes == (wrong(key, "'v3' is not one of v1, v2", "no header is sent"),)


MAX = f"{DOMAIN}max-connections"


def test_max_connections_is_a_number():
    handling, notes = read_handling({MAX: "100"})
    assert (handling.max_connections, notes) == (100, ())


@pytest.mark.parametrize("value", ["0", "-1", "many", "1000001", "1.5"])
def test_a_wrong_number_of_connections_is_no_limit_with_a_note(value):
    handling, notes = read_handling({MAX: value})
    assert handling.max_connections is None
    problem = why(read_max_connections, value)
    assert problem.endswith("1–1000000")
    assert notes == (wrong(MAX, problem, "endpoints have no limit"),)


@pytest.mark.parametrize("kind", list(WorkloadKind))
def test_wake_names_a_workload(kind):
    handling, notes = read_handling(
        {"userspace-proxy.io/wake": f"{kind}/web.v1", "userspace-proxy.io/hold": "60s"}
    )
    assert (handling.wake, notes) == (Workload(kind, "web.v1"), ())


@pytest.mark.parametrize(
    "text", ["web", "pod/web", "deployment/", "deployment/Web", "deployment/a/b"]
)
def test_what_is_no_workload_is_a_note(text):
    handling, notes = read_handling(
        {"userspace-proxy.io/wake": text, "userspace-proxy.io/hold": "60s"}
    )
    assert handling.wake is None
    problem = why(read_workload, text)
    assert notes == (wrong("userspace-proxy.io/wake", problem, "nothing is woken"),)


def test_wake_without_hold_is_a_note():
    _, notes = read_handling({"userspace-proxy.io/wake": "deployment/web"})
    assert notes == (NoteKind.WAKE_WITHOUT_HOLD("nothing is woken"),)


(NOT_TO_ZERO,) = (one.otherwise for one in ANNOTATIONS if one.name == "idle-after")
IDLE_AFTER = f"{DOMAIN}idle-after"
AWAKE = {"userspace-proxy.io/hold": "60s", "userspace-proxy.io/wake": "deployment/web"}


@pytest.mark.parametrize(("text", "seconds"), [("1s", 1.0), ("10m", 600.0), ("24h", 86400.0)])
def test_idle_after_is_a_time(text, seconds):
    handling, notes = read_handling({**AWAKE, IDLE_AFTER: text})
    assert (handling.idle_after_s, notes) == (seconds, ())


@pytest.mark.parametrize("text", ["0", "500ms", "25h"])
def test_a_wrong_idle_after_scales_nothing_to_zero_with_a_note(text):
    handling, notes = read_handling({**AWAKE, IDLE_AFTER: text})
    assert handling.idle_after_s is None
    assert notes == (wrong(IDLE_AFTER, f"{text!r} is not in 1s–24h", NOT_TO_ZERO),)


def test_idle_after_without_a_workload_is_a_note():
    _, notes = read_handling({"userspace-proxy.io/hold": "60s", IDLE_AFTER: "10m"})
    assert notes == (NoteKind.IDLE_WITHOUT_WAKE(NOT_TO_ZERO),)


@pytest.mark.parametrize("annotation", ANNOTATIONS, ids=lambda annotation: annotation.name)
def test_a_text_that_is_too_long_is_a_note(annotation):
    long = "random;" * TEXT_MAX
    handling, notes = read_handling({annotation.key: long})
    assert handling == Handling()
    problem = f"it has {len(long)} characters, and at most {TEXT_MAX} are read"
    assert notes == (wrong(annotation.key, problem, annotation.otherwise),)


def test_the_longest_text_is_read():
    text = "1m".ljust(TEXT_MAX)
    assert read_handling({"userspace-proxy.io/hold": text})[0].hold == Hold(60.0)

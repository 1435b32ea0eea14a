import inspect
import json

import msgspec
import pytest

from userspace_proxy.causes import endpoints, names, services, slices
from userspace_proxy.causes.cause import ROWS, Cause, CauseCode, When, as_read
from userspace_proxy.causes.endpoints import no_host, refuses, resets, silent
from userspace_proxy.causes.notes import kernel_path_unused
from userspace_proxy.causes.say import object_of, remedy, say
from userspace_proxy.facts import PortFacts, StatusFacts
from userspace_proxy.facts.encoding import (
    PARAMS_MAX,
    CauseFacts,
    dump_cause,
    encode_answer,
    from_json,
    load_cause,
    read_answer,
    read_cause,
    to_json,
    write_cause,
)

AT = "10.244.1.7:8080"
MODULES = {module.__name__ for module in (endpoints, names, services, slices)}
OF_ROWS = {key: row for key, row in ROWS.items() if row.words.__module__ in MODULES}
SAMPLES = {
    "At": AT,
    "str": "some text",
    "int": 3,
    "float": 1.5,
    "bool": True,
    "tuple[str, ...]": ("one", "another"),
    "ServiceKey | str": "shop/web",
    "SliceKey | str": "shop/web-1",
}
MODIFIERS = {
    "when": When.LAST_MINUTE,
    "answers_others": True,
    "answers_nodes": True,
    "answers_own": True,
    "host": "db.example.com",
    "has_header": True,
    "is_terminating": True,
    "before": silent(AT).replace(count=2, last_at=3.0, before=no_host(AT, "eth0")),
    "more": 3,
    "within": "EndpointSlice shop/web-1",
    "count": 9,
    "first_at": 1600.5,
    "last_at": 1700.0,
}


def sample(row):
    """Return a cause with sample values for a row's parameters."""
    types = inspect.signature(row.words).parameters.values()
    return row(**{one.name: SAMPLES[one.annotation] for one in types})


def through_json(cause):
    return msgspec.json.decode(written(cause), type=Cause, dec_hook=from_json)


def written(cause):
    return msgspec.json.encode(cause, enc_hook=to_json)


def read(**fields):
    """Return the cause with these fields, decoded from a proxy's JSON."""
    return msgspec.json.decode(json.dumps(fields), type=Cause, dec_hook=from_json)


def words_of(cause):
    """Return the fields of a cause that every version writes to its JSON."""
    counted = cause.count, cause.first_at, cause.last_at
    return (str(cause.code), say(cause), object_of(cause), remedy(cause), *counted)


@pytest.mark.parametrize("row", OF_ROWS.values(), ids=str)
@pytest.mark.parametrize("changes", [{}, MODIFIERS], ids=["plain", "all-modifiers"])
@pytest.mark.parametrize(
    "carry",
    [through_json, lambda cause: load_cause(json.loads(json.dumps(dump_cause(cause))))],
    ids=["json", "other-process"],
)
def test_a_cause_of_each_row_round_trips(row, changes, carry):
    cause = sample(row).replace(**changes)
    found = carry(cause)
    assert found == cause
    assert found.row is row


def test_a_cause_is_written_with_text_and_parameters():
    cause = refuses(AT, was_open=True).replace(when=When.PAST, count=4, first_at=1.0, last_at=2.0)
    assert json.loads(written(cause)) == {
        "code": "endpoint-refuses",
        "sentence": say(cause),
        "object": AT,
        "hint": remedy(cause),
        "count": 4,
        "first_at": 1.0,
        "last_at": 2.0,
        "kind": "refuses",
        "params": {"at": AT, "was_open": True, "when": "past"},
    }


def test_a_causes_parameters_contain_only_the_inputs_of_its_text():
    assert write_cause(kernel_path_unused("slow").replace(count=2)).params == {"why": "slow"}


def test_the_parameters_and_nesting_of_a_cause_are_bounded():
    many = {f"a{number}": 1 for number in range(PARAMS_MAX + 1)}
    with pytest.raises(ValueError, match="more than 64 parameters"):
        read_cause(CauseFacts(params=many))
    chain = silent(AT)
    for _ in range(20):
        chain = silent(AT).replace(before=chain)
    # The decoded cause isn't equal to the original, but has the same text.
    read = through_json(chain)
    assert (read.before, say(read)) == (None, say(chain))


def test_an_encoded_cause_is_cached_but_a_changed_copy_is_encoded_again():
    cause = resets(AT)
    assert write_cause(cause) is write_cause(cause)
    again = cause.replace(count=5)
    assert (write_cause(cause).count, write_cause(again).count) == (0, 5)


WORDS = {
    "sentence": "10.0.0.1:80 is odd",
    "object": "10.0.0.1:80",
    "hint": "Look at it",
    "count": 7,
    "first_at": 1.0,
    "last_at": 2.0,
}
REFUSES = json.loads(written(refuses(AT).replace(count=2)))


@pytest.mark.parametrize(
    "written_by",
    [
        pytest.param({"code": "endpoint-refuses"}, id="older-proxy"),
        pytest.param({"code": "endpoint-refuses", "kind": "", "params": {}}, id="without-a-kind"),
        pytest.param(
            {"code": "endpoint-refuses", "kind": "refuses-oddly", "params": {"at": AT}},
            id="kind-of-a-newer-proxy",
        ),
        pytest.param(
            {"code": "endpoint-is-odd", "kind": "is_odd", "params": {"how": {"very": [1, None]}}},
            id="code-of-a-newer-proxy",
        ),
        pytest.param(
            {"code": "endpoint-is-odd", "kind": "refuses", "params": {"at": AT}},
            id="known-kind-with-a-newer-code",
        ),
        pytest.param(
            {"code": "endpoint-silent", "kind": "refuses", "params": {"at": AT}},
            id="kind-of-another-code",
        ),
        pytest.param(
            {"code": "endpoint-refuses", "kind": "as-read endpoint-refuses", "params": {}},
            id="as-read-kind",
        ),
    ],
)
def test_an_unknown_cause_keeps_the_other_proxys_text(written_by):
    cause = read(**WORDS, **written_by)
    assert words_of(cause) == (written_by["code"], *WORDS.values())


@pytest.mark.parametrize(
    "params",
    [
        pytest.param({}, id="missing"),
        pytest.param({"at": AT, "was_open": False, "oddly": True}, id="unknown"),
        pytest.param({"at": None}, id="null"),
        pytest.param({"at": 5}, id="a-number"),
        pytest.param({"at": ["10.244.1.7", 8080]}, id="a-list"),
        pytest.param({"at": {"ip": "10.244.1.7"}}, id="an-object"),
        pytest.param({"at": AT, "when": "someday"}, id="unknown-time"),
        pytest.param({"at": AT, "when": ["now"]}, id="time-as-a-list"),
        pytest.param({"at": AT, "more": "many"}, id="count-as-a-word"),
        pytest.param({"at": AT, "before": "silent"}, id="failure-as-a-word"),
        pytest.param({"at": AT, "before": {"code": 5}}, id="failure-without-a-code"),
    ],
)
def test_a_cause_with_invalid_parameters_keeps_its_received_text(params):
    cause = read(**{**REFUSES, "params": params})
    assert words_of(cause) == words_of(refuses(AT).replace(count=2))
    assert cause.row is not refuses


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"sentence": f"{AT} refuses all connections"}, id="sentence"),
        pytest.param({"hint": "Compare targetPort"}, id="hint"),
        pytest.param({"params": {"at": "10.244.1.8:80"}}, id="parameter"),
        pytest.param({"params": {"at": AT, "when": "past"}}, id="time"),
        pytest.param({"params": {"at": AT, "host": "db.example.com"}}, id="host"),
    ],
)
def test_a_received_text_that_differs_from_the_rows_text_is_kept(changes):
    fields = {**REFUSES, **changes}
    cause = read(**fields)
    assert words_of(cause) == tuple(fields[name] for name in ("code", *WORDS))
    assert cause != refuses(AT).replace(count=2)


def test_the_text_of_a_newer_code_survives_rewriting():
    cause = read(**WORDS, code="endpoint-is-odd", kind="is_odd")
    assert words_of(through_json(cause)) == words_of(cause)
    past = cause.replace(when=When.PAST)
    assert words_of(through_json(past)) == words_of(past)


def test_absent_fields_of_a_cause_are_read_as_empty():
    assert words_of(read(code="not-ready")) == ("not-ready", "", "", "", 0, 0.0, 0.0)
    assert read_cause(CauseFacts(CauseCode.NOT_READY)) == as_read(CauseCode.NOT_READY)


def test_a_cause_with_an_impossible_number_keeps_its_text():
    fields = {**WORDS, "code": "endpoint-answers-late", "kind": "answers_late"}
    cause = read(**fields, params={"at": AT, "waited_s": 10**400})
    assert words_of(cause)[1] == WORDS["sentence"]


def test_a_parameter_with_a_default_may_be_absent():
    params = {"at": AT}
    assert read(**{**REFUSES, "params": params}) == refuses(AT).replace(count=2)


@pytest.mark.parametrize(
    "carry", [to_json, lambda value: from_json(type(value), {})], ids=["written", "read"]
)
def test_a_value_of_an_unsupported_type_cannot_be_encoded_or_decoded(carry):
    with pytest.raises(TypeError, match="complex is unsupported"):
        carry(1j)


def test_a_response_round_trips():
    facts = StatusFacts(node="node-a", ports=(PortFacts(cause=refuses(AT)),))
    body = encode_answer(facts)
    assert encode_answer(read_answer(body)) == body
    assert read_answer(body).ports[0].cause == refuses(AT)


def test_a_response_hides_credentials_in_a_url():
    assert b"hunter" not in encode_answer({"problem": "http://me:hunter@proxy fails"})


def test_a_lone_surrogate_is_escaped():
    body = encode_answer(StatusFacts(node="node-\ud800a"))
    assert json.loads(body)["node"] == "node-\ud800a"

"""Tests of parsing text into values with line numbers, and of errors for invalid text."""

from __future__ import annotations

import json
import re
from textwrap import dedent

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.cost import Bound, check_cost
from userspace_proxy.errors import InputError
from userspace_proxy.model import document, yaml_builder
from userspace_proxy.model.document import (
    Document,
    decode,
    parse_documents,
    parse_until_error,
    split_documents,
)

WEB = dedent("""\
    # the shop
    apiVersion: v1
    kind: Service
    metadata:
      name: web
      labels: {app.kubernetes.io/name: web}
    spec:
      ports:
        - name: http
          port: 80
        - port: 443
          name: https
    """)


# All examples of a test may share the function-scoped fixture below.
for_each_loader = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30
)


@pytest.fixture(
    autouse=True,
    params=[
        pytest.param("CSafeLoader", id="libyaml"),
        pytest.param("SafeLoader", id="python"),
    ],
)
def loader(request, monkeypatch):
    if not hasattr(yaml, request.param):
        pytest.skip(f"PyYAML was built without {request.param}")
    monkeypatch.setattr(document, "_Loader", getattr(yaml, request.param))


def read(text: str) -> Document:
    [only] = parse_documents(text, place="web.yaml")
    return only


def problem_of(text: str) -> str:
    with pytest.raises(InputError) as caught:
        parse_documents(text, place="web.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        pytest.param("", 2, id="the-document"),
        pytest.param("kind", 3, id="key"),
        pytest.param("spec.ports", 8, id="list"),
        pytest.param("spec.ports[0]", 9, id="item"),
        pytest.param("spec.ports[0].port", 10, id="field-of-an-item"),
        pytest.param("spec.ports[1].name", 12, id="last-field"),
        pytest.param("spec.ports[1].nodePort", 11, id="missing-field"),
        pytest.param("spec.ports[2].port", 8, id="missing-item"),
        pytest.param("spec.clusterIP", 7, id="missing-key"),
        pytest.param("status.x[0].y", 2, id="nothing-of-it"),
        pytest.param("metadata.labels.app.kubernetes.io/name", 6, id="dots-in-a-key"),
        pytest.param("metadata.name.x", 5, id="below-a-scalar"),
        pytest.param("spec[", 7, id="half-an-index"),
    ],
)
def test_a_field_has_its_own_line_or_the_line_of_its_container(path, line):
    assert read(WEB).line_of(path) == line


def test_line_numbers_continue_across_documents_and_empty_documents_are_omitted():
    documents = parse_documents("---\n# none\n---\na: 1\n---\n\n--- null\n---\nb: 2\n", place="x")
    assert [(d.value, d.line) for d in documents] == [({"a": 1}, 4), ({"b": 2}, 9)]


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "---\n", "~", "\ufeff"])
def test_a_yaml_text_without_documents_yields_an_empty_list(text):
    assert parse_documents(text, place="x") == []


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('{"a":{"b":[1,"\\/",true,null]}}', id="tight"),
        pytest.param('\ufeff{"a": {"b": [1, "/", true, null]}}', id="byte-order-mark"),
        pytest.param("a: {b: [1, /, true, ~]}\r\n", id="yaml"),
    ],
)
def test_json_is_parsed_like_yaml(text):
    assert read(text).value == {"a": {"b": [1, "/", True, None]}}


def test_json_may_be_indented_with_tabs(monkeypatch):
    monkeypatch.setattr(document, "_Loader", yaml.CSafeLoader)  # yaml.SafeLoader rejects tabs.
    assert read('{\n\t"a": {\n\t\t"b": 1\n\t}\n}\n').value == {"a": {"b": 1}}


def test_json_surrogate_pairs_are_decoded():
    assert read(json.dumps({"a": "\\ud83d 🐍 \\"})).value == {"a": "\\ud83d 🐍 \\"}


# YAML rejects DEL everywhere, but JSON accepts it in strings.
texts = st.text(
    alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"), max_size=40
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=20,
)


@for_each_loader
@given(value=st.dictionaries(texts, json_values, min_size=1))
def test_written_json_round_trips(loader, value):
    assert read(json.dumps(value)).value == value
    assert read(json.dumps(value, indent=2)).value == value
    assert read(json.dumps(value, separators=(",", ":"))).value == value


@for_each_loader
@given(text=st.text(alphabet=st.sampled_from("ab:-[]{},&*<|>?!'\"#%@ \t\n\r0129.~\\\x00\ud800é")))
def test_arbitrary_yaml_is_parsed_or_rejected_in_one_line(loader, text):
    try:
        documents = parse_documents(text, place="web.yaml")
        problem_text = "web.yaml:1: "
    except InputError as exc:
        documents, problem_text = [], str(exc)
    assert all(d.value is not None for d in documents)
    place, line, _ = problem_text.split(":", 2)
    assert place == "web.yaml"
    assert 1 <= int(line) <= text.count("\n") + text.count("\r") + 1
    assert "\n" not in problem_text


def test_yaml_1_1_words_are_booleans_as_in_kubectl():
    document = read("a: yes\nb: off\ny: 'n'")
    assert document.value == {"a": True, "b": False, "true": "n"}
    assert [str(one) for one in document.mistakes] == [
        "web.yaml:3: key true is not text (quote it)"
    ]


def test_quoted_and_tagged_scalars_are_text():
    assert read("['012', \"80\", !!str 80, ! true]").value == ["012", "80", "80", "true"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("a: 1\nb: \x07", "web.yaml:2: not YAML: character U+0007: ", id="control"),
        pytest.param("a: é\nb: \ud800", "web.yaml:2: the text isn't valid Unicode", id="half"),
        pytest.param("a:\n  b: c: d", "web.yaml:2: not YAML: ", id="two-colons"),
        pytest.param("a: 1\n--- b: [", "web.yaml:2: not YAML: ", id="second-document"),
        pytest.param("a: {b: 1", "web.yaml:1: not YAML: ", id="open-end"),
    ],
)
def test_a_syntax_error_is_reported_in_one_line_with_line_number_and_cause(text, problem):
    problem_text = problem_of(text)
    assert problem_text.startswith(problem)
    assert "\n" not in problem_text


def test_a_tab_in_the_indentation_is_named_as_the_cause():
    problem_text = problem_of("a:\n\tb: 1")
    assert problem_text.startswith(
        "web.yaml:2: not YAML: while scanning for the next token, found char"
    )
    assert problem_text.endswith("(indent with spaces, not tabs)")


def parts_of(text: str) -> list[tuple[str, int]]:
    return [(part.text, part.lines_before) for part in split_documents(text)]


def test_a_text_is_split_at_document_markers():
    text = "# none\n---\na: 1\n\n--- {b: 2}\n---c: d\n---\n"
    assert parts_of(text) == [
        ("# none\n", 0),
        ("---\na: 1\n\n", 1),
        ("--- {b: 2}\n---c: d\n", 4),
        ("---\n", 6),
    ]


def read_all(text: str) -> list[Document]:
    return parse_documents(text, place="x")


def test_json_objects_may_be_concatenated():
    text = '{"a": "}"}{"b":\n 1}\n\n{"c": 2}\n---\nd: 3\n---\ne: 4\n'
    assert parts_of(text) == [
        ('{"a": "}"}', 0),
        ('{"b":\n 1}', 0),
        ('\n\n{"c": 2}', 1),
        ("---\nd: 3\n", 4),
        ("---\ne: 4\n", 6),
    ]


def test_many_json_objects_are_split_in_linear_time():
    def split(data):
        parts = split_documents(data.decode())
        assert (len(parts), parts[-2].lines_before) == (10_001, 9_998 * 200)

    # Counting lines from the beginning for each object would take seconds.
    check_cost(split, (b"{}" + b"\n" * 200) * 10_000, Bound(0.5, 0.0))


@pytest.mark.parametrize(
    "text", ['{"a": 1} x', '{"a": 1}: 2\n', '{"a": 1}[2]', "{a: 1}{b: 2}", '{"a": 1}\n{b: 2}']
)
def test_text_after_a_json_object_is_not_split(text):
    assert parts_of(text) == [(text, 0)]


def test_a_byte_order_mark_may_begin_each_document():
    text = "a: 1\n---\r\n\ufeffb: 2\n"
    values = [d.value for part in split_documents(text) for d in read_all(part.text)]
    assert values == [d.value for d in read_all(text)] == [{"a": 1}, {"b": 2}]


def test_empty_documents_before_another_document_are_omitted():
    text = "---\n" * 3 + "--- \t\r\n---\na: 1\n" + "---\n" * 1000 + "b: 2\n---\n"
    assert parts_of(text) == [("---\na: 1\n", 4), ("---\nb: 2\n", 1005), ("---\n", 1007)]


@pytest.mark.parametrize("start", ["", "\x85"])
def test_the_number_of_documents_is_limited(monkeypatch, start):
    monkeypatch.setattr(yaml_builder, "DOCUMENTS_MAX", 3)
    _, error = parse_until_error(start + "---\n" * 4, place="x", lines_before=-len(start))
    assert re.match(r"x:4: it has more than .* documents", str(error))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("%YAML 1.2\n---\na: 1\n---\nb: 1\n", id="directive"),
        pytest.param("a: 1\n...\n%YAML 1.2\n---\nb: 1\n", id="later-directive"),
        pytest.param("a: 1\r---\nb: 1\n---\nc: 1\n", id="carriage-return"),
        pytest.param("a: 1\u2028b: 1\n---\nc: 1\n", id="line-separator"),
        pytest.param("a: 1\x85---\nb: 1\n---\nc: 1\n", id="next-line"),
    ],
)
def test_a_text_that_cannot_be_split_safely_is_a_single_part(text):
    assert parts_of(text) == [(text, 0)]


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\n---\nb: 2\n",
        "---\r\na: 1\r\n---\r\nb: 2\r\n",
        "a: |\n  ---\n  x\n--- |\n x\n---\n- a\n- b\n...\n---\nd: 1",
        "- &a 1\n- *a\n---\n- &a 2\n- *a\n",
        '\ufeff{"a": "\\ud83d\\ude00"}\n---\n{"b": "\\ud83d\\ude00"}\n',
        "a: x\n --- y\n---\nb: 'x\n\n ---\n  y'\n",
    ],
)
def test_a_split_text_has_the_same_documents_and_line_numbers(text):
    whole = parse_documents(text, place="x")
    parts = [
        (document.value, part.lines_before + document.line)
        for part in split_documents(text)
        for document in parse_documents(part.text, place="x")
    ]
    assert parts == [(document.value, document.line) for document in whole]


def test_alias_expansion_is_counted_and_limited():
    text = "a: &a [1, 2]\nb: [*a, *a]\n"
    [document] = parse_documents(text, place="x")
    assert document.aliased_nodes == 6
    _, error = parse_until_error(text, place="x", aliased_nodes_max=5)
    assert re.match(r"x:2: .*aliases expand to more than 5 values", str(error))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: {b: 1,\n\n", "x:12: not YAML: while parsing a flow node"),
        (
            "a:\n- b: [1,\nc: 2\n}\n",
            "x:14: not YAML: while parsing a flow sequence begun in line 12",
        ),
        ("a: 1\nb: \x01\n", "x:12: not YAML: character U+0001"),
        ("a: 1\nb: \ud800\n", "x:12: the text isn't valid Unicode"),
    ],
)
def test_errors_in_a_part_have_line_numbers_of_the_whole_text(text, problem):
    _, error = parse_until_error(text, place="x", lines_before=10)
    assert str(error).startswith(problem)


def test_mistakes_in_a_part_have_line_numbers_of_the_whole_text():
    [only], _ = parse_until_error("a: 1\nb: 2\na: 3\n", place="x", lines_before=10)
    assert [str(one) for one in only.mistakes] == ["x:13: key 'a' is given twice, first in line 11"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_byte_order_mark_determines_the_encoding(encoding):
    [only] = parse_documents(decode("a: gar\u00e7on \U0001f600\r\n".encode(encoding)), place="x")
    assert only.value == {"a": "gar\u00e7on \U0001f600"}
    assert only.mistakes == ()


def test_big_endian_utf_16_is_decoded():
    assert decode("\ufeffa: 1".encode("utf-16-be")) == "a: 1"


def test_an_invalid_utf_8_byte_is_reported_except_in_a_comment():
    [only] = parse_documents(decode(b"# gar\xe7on\na: 1\nb: gar\xe7on\n\xe7: 2\n"), place="x")
    assert only.value["a"] == 1
    assert [str(one) for one in only.mistakes] == [
        "x:3: b: it is not UTF-8 here (save the file as UTF-8)",
        "x:4: it is not UTF-8 here (save the file as UTF-8)",
    ]


@pytest.mark.parametrize("text", ["a\x85b", "\u2028", "a\u2029\u2029 b"])
@pytest.mark.parametrize("make", [lambda text: {"a": text}, lambda text: [text, 1]])
def test_yaml_line_breaks_are_ordinary_characters_in_json(text, make):
    value = make(text)
    [document] = parse_documents(json.dumps(value, ensure_ascii=False), place="web.json")
    assert document.value == value

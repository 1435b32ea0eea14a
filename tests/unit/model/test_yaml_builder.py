"""Tests of building values with line numbers from YAML, and of rejected documents."""

from __future__ import annotations

from textwrap import dedent

import pytest

from userspace_proxy.errors import InputError
from userspace_proxy.model import yaml_builder
from userspace_proxy.model.document import Document, parse_documents


def read(text: str) -> Document:
    [only] = parse_documents(text, place="web.yaml")
    return only


def problem_of(text: str) -> str:
    """Return the first mistake, or the reason for which the whole text is rejected."""
    try:
        return str(read(text).mistakes[0])
    except InputError as exc:
        return str(exc)


def test_a_yaml_alias_has_its_anchors_value_and_its_own_line():
    web = read("a: &ports\n  - port: 80\nb: *ports\n&n c: 7\nd: *n\n")
    assert web.value == {"a": [{"port": 80}], "b": [{"port": 80}], "c": 7, "d": "c"}
    assert [web.line_of(p) for p in ("b", "b[0].port", "d")] == [3, 2, 5]


def test_a_yaml_alias_can_be_a_key():
    assert read("a: &k web\n*k : 1\n").value == {"a": "web", "web": 1}


def test_yaml_merge_keys_add_only_missing_keys():
    text = """\
        - &web {port: 80, name: web}
        - &tls
          port: 443
          secure: true
        - <<: [*web, *tls]
          name: shop
        - {"<<": text}
        """
    merged = read(dedent(text))
    assert merged.mistakes == ()
    assert merged.value[2] == {"name": "shop", "port": 80, "secure": True}
    assert merged.value[3] == {"<<": "text"}
    assert [merged.line_of(f"[2].{key}") for key in ("name", "port", "secure")] == [6, 1, 4]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "spec:\n  ports:\n  - port: 80\n    name: a\n    port: 81\n",
            "web.yaml:5: spec.ports[0]: key 'port' is given twice, first in line 3",
        ),
        ('{"a": 1,\n "a": 2}', "web.yaml:2: key 'a' is given twice, first in line 1"),
        (
            "spec:\n  ports:\n  - port: 012\n",
            "web.yaml:3: spec.ports[0].port: 012 is 10 in YAML 1.1 and 12 in YAML 1.2 "
            "(quote it, or write 10 or 12)",
        ),
        ("ports: {80: web}", "web.yaml:1: ports: key 80 is not text (quote it)"),
        ("true: 1", "web.yaml:1: key true is not text (quote it)"),
        ("? [a]\n: 1", "web.yaml:1: a key must be text, not a mapping or list"),
        ("a: &x [7]\n*x : 1", "web.yaml:2: a key must be text, not a mapping or list"),
        ("a: {b: \ufdd0}", "web.yaml:1: a.b: it is not UTF-8 here (save the file as UTF-8)"),
        ("a: &x 7\n*x : 1", "web.yaml:2: key 7 is not text (quote it)"),
        ("a: *b", "web.yaml:1: a: the alias is not defined (quote a text that begins with *)"),
        (
            "a: &b 1\n---\nc: *b",
            "web.yaml:3: c: the alias is not defined (quote a text that begins with *)",
        ),
        ("a: &a\n  b: *a", "web.yaml:2: a.b: alias *a is part of the value that it refers to"),
        ("a: 1\n<<: 2", "web.yaml:2: << takes a mapping or a list of mappings"),
        ("<<: {a: 1}\n<<: {b: 1}", "web.yaml:2: << is given twice (merge a list of aliases)"),
        (
            "- &x {a: 1}\n- a: 2\n  <<: *x",
            "web.yaml:3: [1]: << replaces key 'a' of line 2 (write << before it)",
        ),
        ("<<: {a: 1}\na: 2\na: 3", "web.yaml:3: key 'a' is given twice, first in line 2"),
        ("a: !!python/none x", "web.yaml:1: a: tag !!python/none is not understood (leave it out)"),
        ("a: !x [1]", "web.yaml:1: a: tag !x is not understood (leave it out)"),
        ("a: !!int b", "web.yaml:1: a: 'b' is not what its tag !!int says"),
        ("a: !!bool 1", "web.yaml:1: a: '1' is not what its tag !!bool says"),
        ("[" * 101, "web.yaml:1: " + "[0]" * 100 + ": nested more than 100 deep"),
    ],
)
def test_a_yaml_error_is_reported_in_one_line_with_line_number_and_cause(text, problem):
    assert problem_of(text) == problem


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("a: 1\nb: 2\na: 3", {"a": 3, "b": 2}, id="the-last-of-equal-keys"),
        pytest.param("mode: 0640", {"mode": 0o640}, id="octal"),
        pytest.param("mode: -017", {"mode": -15}, id="negative-octal"),
        pytest.param("a: 08", {"a": 8}, id="no-octal"),
        pytest.param(f"a: {'9' * 80}", {"a": 1e80}, id="more-than-64-bits"),
        pytest.param("{80: web, true: x, null: z}", {"80": "web", "true": "x", "null": "z"}),
        pytest.param("a: !x [1]", {"a": [1]}, id="tag"),
        pytest.param("a: 1\n<<: 2", {"a": 1}, id="merge-of-a-number"),
        pytest.param("a: 1\n<<: {a: 2}", {"a": 2}, id="merge-after-a-key"),
        pytest.param("<<: {a: 1, b: 1}\n<<: {a: 2}", {"a": 2, "b": 1}, id="two-merges"),
    ],
)
def test_a_yaml_mistake_is_reported_beside_the_value_that_kubectl_reads(text, value):
    document = read(text)
    assert document.value == value
    assert document.mistakes


def test_a_yaml_tag_sets_the_type_of_a_quoted_scalar():
    text = "[!!int '80', !!float 80, !!float '1.5', !!bool 'yes', !!null '', !!str 80]"
    document = read(text)
    assert document.value == [80, 80, 1.5, True, None, "80"]
    assert document.mistakes == ()


def test_a_yaml_mistake_has_the_path_of_its_container_or_key():
    text = "items:\n- {a: 1}\n- spec: {b: 012, c: 1, c: 2}\n- {7: 1}\n"
    assert [one.path for one in read(text).mistakes] == [
        "items[1].spec.b",
        "items[1].spec",
        "items[2]",
    ]


def test_each_yaml_document_has_its_own_mistakes():
    first, second = parse_documents("a: 012\n---\nb: 1\n", place="web.yaml")
    assert len(first.mistakes) == 1
    assert second.mistakes == ()


def test_a_yaml_document_with_too_many_mistakes_is_rejected():
    text = "[" + "012, " * 10_002 + "]"
    assert problem_of(text).startswith(
        "web.yaml:1: [10000]: there are more than 10,000 such mistakes"
    )


def test_alias_expansion_of_a_small_text_is_bounded():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    assert problem_of("\n".join(lines)).startswith(
        "web.yaml:5: a4[7]: aliases expand to more than 100000 values"
    )


def test_aliases_are_limited_to_the_same_nesting_depth_as_brackets():
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 200)]
    assert "nests more than 100 deep" in problem_of("\n".join(lines))


def test_the_number_of_documents_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_builder, "DOCUMENTS_MAX", 3)
    assert len(parse_documents("--- 1\n" * 3, place="x")) == 3
    with pytest.raises(InputError, match="x:4: it has more than"):
        parse_documents("--- 1\n" * 4, place="x")

"""Building values and places: aliases, merge keys, and what is refused."""

from __future__ import annotations

from textwrap import dedent

import pytest

from userspace_proxy.errors import InputError
from userspace_proxy.model.document import Document, parse_documents


def read(text: str) -> Document:
    [only] = parse_documents(text, place="web.yaml")
    return only


def problem_of(text: str) -> str:
    with pytest.raises(InputError) as caught:
        parse_documents(text, place="web.yaml")
    return str(caught.value)


def test_an_alias_has_the_value_of_its_anchor_and_its_own_line():
    web = read("a: &ports\n  - port: 80\nb: *ports\n&n c: 7\nd: *n\n")
    assert web.value == {"a": [{"port": 80}], "b": [{"port": 80}], "c": 7, "d": "c"}
    assert [web.line_of(p) for p in ("b", "b[0].port", "d")] == [3, 2, 5]


def test_an_alias_may_be_a_key():
    assert read("a: &k web\n*k : 1\n").value == {"a": "web", "web": 1}


def test_merge_keys_fill_in_what_the_mapping_does_not_say():
    text = """\
        - &web {port: 80, name: web}
        - &tls
          port: 443
          secure: true
        - name: shop
          <<: [*web, *tls]
        - {"<<": text}
        """
    merged = read(dedent(text))
    assert merged.value[2] == {"name": "shop", "port": 80, "secure": True}
    assert merged.value[3] == {"<<": "text"}
    assert [merged.line_of(f"[2].{key}") for key in ("name", "port", "secure")] == [5, 1, 4]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(
            "spec:\n  ports:\n  - port: 80\n    name: a\n    port: 81\n",
            "web.yaml:5: spec.ports[0]: key 'port' is given twice, first in line 3",
            id="duplicate-key",
        ),
        pytest.param(
            '{"a": 1,\n "a": 2}',
            "web.yaml:2: key 'a' is given twice, first in line 1",
            id="duplicate-key-in-json",
        ),
        pytest.param(
            "spec:\n  ports:\n  - port: 012\n",
            "web.yaml:3: spec.ports[0].port: 012 is 10 in YAML 1.1 and 12 in YAML 1.2 "
            "(quote it, or write 10 or 12)",
            id="leading-zero",
        ),
        pytest.param(
            "ports: {80: web}",
            "web.yaml:1: ports: key 80 is not text (quote it)",
            id="number-as-key",
        ),
        pytest.param("true: 1", "web.yaml:1: key true is not text (quote it)", id="true-as-key"),
        pytest.param("? [a]\n: 1", "web.yaml:1: a key must be text, not a mapping or list"),
        pytest.param("a: &x 7\n*x : 1", "web.yaml:2: key 7 is not text (quote it)", id="alias-key"),
        pytest.param(
            "a: *b", "web.yaml:1: a: alias *b is not defined (write &b before it)", id="no-anchor"
        ),
        pytest.param(
            "a: &a\n  b: *a",
            "web.yaml:2: a.b: alias *a is part of the value that it refers to",
            id="endless-alias",
        ),
        pytest.param("a: 1\n<<: 2", "web.yaml:2: << takes a mapping or a list of mappings"),
        pytest.param(
            "<<: {a: 1}\n<<: {b: 1}", "web.yaml:2: << is given twice (merge a list of aliases)"
        ),
        pytest.param(
            "a: !!python/none x",
            "web.yaml:1: a: tag !!python/none is not understood (leave it out)",
        ),
        pytest.param("a: !x [1]", "web.yaml:1: a: tag !x is not understood (leave it out)"),
        pytest.param("[" * 101, "web.yaml:1: " + "[0]" * 100 + ": nested more than 100 deep"),
    ],
)
def test_an_error_is_one_line_with_place_and_cause(text, problem):
    assert problem_of(text) == problem


def test_a_small_text_cannot_become_a_huge_object():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    assert problem_of("\n".join(lines)).startswith(
        "web.yaml:5: a4[7]: aliases expand to more than 100000 values"
    )


def test_a_chain_of_aliases_cannot_nest_deeper_than_brackets_can():
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 200)]
    assert "nests more than 100 deep" in problem_of("\n".join(lines))

"""Tests of the changes that are drawn from code."""

from __future__ import annotations

import ast

import pytest

from .drawn_mutants import changed, changes, draw, named

SOURCE = '''
LIMIT = 5


def shed(clients, limit, now):
    """Returns how many."""
    if not (limit or clients):
        return
    while len(clients) >= limit and clients:
        client = clients.pop(now, None)
        client.close()
        client.deadline = now + 1
        _log.info("closed", 2)
    move(limit, clients)
    is_done = True
'''


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        pytest.param("condition", "if not (limit", "if  (limit", id="condition"),
        pytest.param("and/or", "limit or clients", "limit and clients", id="or"),
        pytest.param("and/or", "limit and clients", "limit or clients", id="and"),
        pytest.param("off by one", ">= limit", "> limit", id="comparison"),
        pytest.param("off by one", "now + 1", "now + 2", id="number"),
        pytest.param("sign", "now + 1", "now - 1", id="sign"),
        pytest.param("leak", "pop(now, None)", "get(now, None)", id="pop"),
        pytest.param("leak", "client.close()", "pass", id="close"),
        pytest.param("time", "client.deadline = now + 1", "pass", id="deadline"),
        pytest.param("missing step", "move(limit, clients)", "pass", id="call"),
        pytest.param(
            "wrong object", "move(limit, clients)", "move(clients, limit)", id="arguments"
        ),
        pytest.param("flag", "is_done = True", "is_done = False", id="flag"),
    ],
)
def test_code_is_changed_in_one_place(kind: str, old: str, new: str) -> None:
    assert SOURCE.count(old) == 1
    wanted = SOURCE.replace(old, new)
    assert (kind, wanted) in [(each.kind, changed(SOURCE, each)) for each in changes(SOURCE)]


def test_each_change_is_a_program_and_neither_text_nor_a_constant_of_the_module() -> None:
    texts = [changed(SOURCE, each) for each in changes(SOURCE)]
    for text in texts:
        ast.parse(text)
    assert len(set(texts)) == len(texts)
    assert all("LIMIT = 5\n" in text and '_log.info("closed", 2)' in text for text in texts)


def test_mutants_are_drawn_from_lines_that_run_and_are_found_again_by_their_label() -> None:
    lines = {"userspace_proxy.balance.round_robin": range(1, 1000), "userspace_proxy.model": [1]}
    drawn = draw(lines, seed=1, count=5)
    assert drawn == draw(lines, seed=1, count=5)
    assert len({each.change.kind for each in drawn}) >= 4
    assert [named(each.label) for each in drawn] == drawn

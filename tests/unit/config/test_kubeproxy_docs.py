from pathlib import Path

import pytest

from userspace_proxy.config.kubeproxy_docs import BEGIN, END, put_into, render_tables

from .test_ignored import ALL, ALL_FIELDS

PAGE = Path(__file__).parents[3] / "docs" / "kube-proxy.md"


def test_the_page_says_what_the_code_does():
    page = PAGE.read_text(encoding="utf-8")
    assert put_into(page) == page, (
        "renew it: python -m userspace_proxy.config.kubeproxy_docs docs/kube-proxy.md"
    )


def test_every_flag_and_field_of_kube_proxy_has_one_row():
    lines = render_tables().splitlines()
    rows = [line.split("`")[1] for line in lines if line.startswith("| `")]
    flags = {f"--{flag}" for flag in ALL} - {"--help", "--version"}
    assert {*flags, *ALL_FIELDS} - {*rows} == set()
    assert len(rows) == len({*rows})


def test_flags_of_ours_are_not_among_them():
    assert "| `--steering`" not in render_tables()
    assert "| `--log-format`" not in render_tables()


def test_what_stands_around_the_tables_stays():
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert put_into(page) == f"before\n{render_tables()}after\n"


def test_a_page_without_marks_is_refused():
    with pytest.raises(ValueError, match="no markers"):
        put_into("text")

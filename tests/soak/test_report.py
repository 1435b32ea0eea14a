"""The table of a soak, and when it fails."""

from dataclasses import replace
from textwrap import dedent

from tests.reliability.footprint import MIB, Footprint
from tests.soak.holdings import Holdings
from tests.soak.report import SideReport, page_of, problems, render
from tests.soak.requests import Figures
from tests.tools.markdown import without_marked

HELD = Holdings(Footprint(frozenset({1, 2}), 60, 8, 0, 50 * MIB, ("rule",)), 3)
STEADY = [50 * MIB] * 20
FIGURES = {"quiet": Figures(made=1200, slowest_s=0.25)}


def side(title="userspace-proxy", after=HELD, memory=STEADY, figures=FIGURES):
    return SideReport(title, figures, HELD, after, memory)


THEIRS = side("kube-proxy")


def test_a_soak_that_ends_as_it_began_passes():
    assert problems([side(), THEIRS]) == []


def test_leaks_are_named():
    more = replace(HELD.footprint, descriptors=160, rules=("rule", "stale"))
    left = side(after=Holdings(more, 500))
    assert problems([left, THEIRS]) == [
        "descriptors 60 → 160",
        "rules, routes or ports differ: ['stale']",
        "tracked connections 3 → 500",
    ]


def test_memory_that_grows_over_the_last_half_is_a_leak():
    growing = side(memory=[size * MIB for size in range(100, 120)])
    assert problems([growing, THEIRS]) == [
        "memory grew by 7.9% over the last half, at most 1%",
    ]


def test_memory_that_grew_only_in_the_first_half_is_not():
    assert problems([side(memory=[20 * MIB] * 10 + [50 * MIB] * 10), THEIRS]) == []


def test_a_step_of_the_last_processes_is_not():
    steps = [89 * MIB] * 38 + [93 * MIB] * 7
    assert problems([side(memory=steps * 2), THEIRS]) == []


def test_a_short_soak_has_no_slope():
    assert side(memory=[1, 2, 3]).slope is None


def test_the_table_has_each_change_and_what_remained():
    figures = {"worker killed": Figures(made=1200, cut=2, slowest_s=0.25)}
    figures["worker killed"].failed["short: TimeoutError"] = 3
    text = render([side(figures=figures, memory=[50 * MIB] * 2)])
    assert text == dedent("""\
        userspace-proxy
          during                  requests  failed   cut  slowest
          worker killed              1,200       3     2    0.25 s  3 short: TimeoutError
          processes                      2 → 2
          threads                        8 → 8
          descriptors                   60 → 60
          open connections               0 → 0
          tracked connections            3 → 3
          rules, routes, ports           1 → 1
          memory                  50.0 MiB → 50.0 MiB
          memory, last half     not judged: too few rounds
          memory, MiB           50 50
        """)


def test_the_page_states_whether_the_run_passed():
    machine = {"kernel": "Linux 6.18"}
    page = page_of([side(), THEIRS], machine, 250.0)
    assert "It passed." in page
    assert "| kernel | Linux 6.18 |" in page
    assert "250 new connections a second" in page
    assert "20 times" in page
    assert "|" not in without_marked(page)
    assert "quiet" not in without_marked(page)
    growing = side(memory=[size * MIB for size in range(100, 120)])
    assert "It failed: memory grew by 7.9%" in page_of([growing, THEIRS], machine, 250.0)

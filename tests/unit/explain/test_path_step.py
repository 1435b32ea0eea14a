import pytest

from userspace_proxy.explain import explain
from userspace_proxy.explain.path_step import PathStep
from userspace_proxy.facts import Level

from .subjects import make_subject


def test_a_step_without_a_level_decides_nothing():
    explanation = explain(make_subject(), pods=[PathStep(None, "pods", "as intended")])
    assert (explanation.level, explanation.sentence) == (
        Level.OK,
        "Clients are served by 2 endpoints",
    )


@pytest.mark.parametrize(("is_by_design", "mark"), [(False, Level.ATTENTION), (True, None)])
def test_what_is_by_design_has_a_neutral_mark(is_by_design, mark):
    assert PathStep(Level.ATTENTION, "service", "x", is_by_design=is_by_design).mark is mark

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

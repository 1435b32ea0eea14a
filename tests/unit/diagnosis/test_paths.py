from userspace_proxy.causes.endpoints import silent_to_some
from userspace_proxy.diagnosis.paths import (
    PathView,
    format_path,
)
from userspace_proxy.model import DataPath
from userspace_proxy.policy import PathDecision

from .words import WORDS, paths

KERNEL = DataPath.KERNEL


def test_the_recorded_page_contains_texts_of_paths_and_probes():
    recorded = WORDS.read_text(encoding="utf-8").splitlines()
    assert [*paths()] == recorded[-len([*paths()]) :]


def test_a_path_is_formatted_with_its_age_and_reason():
    assert format_path("kernel", "it is asked for", 100.0, 280.0) == (
        "kernel for 3 min: it is asked for"
    )
    assert format_path("userspace", "", 0.0, 280.0) == "userspace"


def test_a_paths_age_starts_when_it_takes_effect():
    chosen = PathDecision(DataPath.KERNEL, "its annotation asks for it")
    view = PathView(since=90.0, kernel_connections=3).follow(chosen, 100.0)
    assert view == PathView(DataPath.KERNEL, 100.0, "its annotation asks for it", 3)
    assert view.follow(PathDecision(DataPath.KERNEL, "auto"), 110.0) == PathView(
        DataPath.KERNEL, 100.0, "auto", 3
    )


def test_unanswered_clients_are_reported_only_on_the_kernel_path():
    silent = PathView(DataPath.KERNEL, unanswered=silent_to_some("10.244.1.2:80"))
    for path, unanswered in ((DataPath.KERNEL, silent.unanswered), (DataPath.USERSPACE, None)):
        assert silent.follow(PathDecision(path, "auto"), 110.0).unanswered == unanswered

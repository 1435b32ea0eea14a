from userspace_proxy.model import Path
from userspace_proxy.status.paths import PathView, path_in_words


def test_a_path_has_its_age_and_its_reason_where_they_are_known():
    assert path_in_words("kernel", "it is asked for", 100.0, 280.0) == (
        "kernel for 3 min: it is asked for"
    )
    assert path_in_words("userspace", "", 0.0, 280.0) == "userspace"


def test_only_the_userspace_path_without_a_reason_is_the_default():
    assert PathView().is_default
    assert not PathView(Path.KERNEL).is_default
    assert not PathView(why="hold needs the proxy").is_default

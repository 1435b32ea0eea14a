"""What is said of a Service's slices."""

from userspace_proxy.causes import slices

from . import words


def test_their_words_are_on_the_page():
    assert words.changed(slices) == []

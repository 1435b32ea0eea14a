"""What is said of endpoints by name."""

from userspace_proxy.causes import names

from . import words


def test_their_words_are_on_the_page():
    assert words.changed(names) == []

from userspace_proxy.nodes.dashboard.searching import has_words


def test_all_words_must_be_in_the_texts():
    assert has_words("NODE 1.2", ["node-1", "1.2.3"])
    assert not has_words("node 1.4", ["node-1", "1.2.3"])
    assert has_words("", [])

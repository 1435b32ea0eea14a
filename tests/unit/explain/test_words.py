from .words import WORDS, page


def test_what_explain_writes_is_on_the_page():
    recorded = WORDS.read_text(encoding="utf-8").splitlines()
    assert [*page()] == recorded, "if that is intended: python -m tests.unit.explain.words"

from . import words


def test_each_clause_has_a_sample():
    assert {sample.row for sample in words.SAMPLES} == set(words.ROWS)


def test_the_words_of_clauses_are_those_of_the_page():
    recorded = words.WORDS.read_text(encoding="utf-8")
    assert words.page() == recorded, "if that is intended: python -m tests.unit.diagnosis.words"

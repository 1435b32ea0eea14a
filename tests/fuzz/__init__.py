"""Fuzzing of everything that reads what another program wrote.

    corpus/TARGET/*  ── replayed by pytest (test_corpus.py), in ``make corpus``
          └──▶ atheris ──mutated──▶ targets: check(bytes) ── an exception ──▶ a crash, as a file

Rule 1: a target is a function that takes any bytes. It returns if the parser kept its contract, and
raises anything else.
Rule 2: a parser's contract: it returns a value or raises its documented exception, in bounded
memory, and in CPU time below a bound that is linear in the input's length (``cost``).
Rule 3: the corpus contains real examples (``seed-…``) and every crash that was found, as small
files.
"""

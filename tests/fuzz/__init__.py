"""Fuzzes the code that reads other programs' data.

    corpus/TARGET/*  ── replayed by pytest (test_corpus.py), in ``make corpus``
          └──▶ atheris ──mutated──▶ targets: check(bytes) ── an exception ──▶ a crash, as a file

Rule 1: a target is a function that accepts any bytes. It returns if the parser fulfils its
contract; otherwise it raises an exception.
Rule 2: by its contract, a parser returns a value or raises its documented exception, in bounded
memory, and in CPU time below a bound that is linear in the input's length (``cost``).
Rule 3: the corpus contains real examples (``seed-…``), and all crashes found so far, as small
files.
"""

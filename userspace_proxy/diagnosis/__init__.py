"""Diagnoses how clients of Services are served: turns facts into verdicts and sentences.

    facts ──▶ symptoms ──▶ rules, in order ──▶ verdict ──▶ sentence, remedy

This package is pure code. All readers use its verdicts instead of judging for themselves.
"""

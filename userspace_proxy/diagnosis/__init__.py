"""Diagnoses how clients of Services are served: turns facts into verdicts and sentences.

    facts ──▶ symptoms ──▶ rules, in order ──▶ verdict ──▶ sentence, remedy

Pure code. All readers use these verdicts; none judges for itself.
"""

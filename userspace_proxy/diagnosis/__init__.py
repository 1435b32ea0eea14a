"""How the clients of Services fare, and why: facts become verdicts, and these become sentences.

    facts ──▶ symptoms ──▶ rules, in order ──▶ verdict ──▶ sentence, remedy

Pure; all observers read verdicts, and none judges again.
"""

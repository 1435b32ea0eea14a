"""How clients of Services are served, and why not: turns facts into verdicts and sentences.

    facts ──▶ symptoms ──▶ rules, in order ──▶ verdict ──▶ sentence, remedy

Pure code. All observers read the verdicts; none judges again.
"""

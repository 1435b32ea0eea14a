"""A matrix of faults: each row causes a real fault, and states how clients are affected.

See docs/reliability.md, which ``make faults`` generates, and CONTRIBUTING.md on how to add a row.
"""

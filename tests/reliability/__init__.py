"""A matrix of faults: each row breaks something for real and states what that costs.

See docs/reliability.md, which ``make faults`` generates, and CONTRIBUTING.md on how to add a row.
"""

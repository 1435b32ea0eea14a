"""A matrix of faults: each row causes a real fault, and limits its effects on clients.

``make faults`` generates docs/reliability.md; CONTRIBUTING.md describes how to add a row."""

"""Follows the path of connections to one Service, and reports the step at which they fail.

    running proxy, manifests or API server ──▶ Subject ──▶ steps ──▶ sentence, next command

This package changes nothing, and dials endpoints or requests pods only if the user asks for it.
"""

from .explanation import Explanation, PathStep, Subject, read_subject, render_json, render_text
from .next_command import Invocation
from .sentence import explain

__all__ = [
    "Explanation",
    "Invocation",
    "PathStep",
    "Subject",
    "explain",
    "read_subject",
    "render_json",
    "render_text",
]

"""Follows the path of connections to one Service, and states at which step they fail.

    running proxy, manifests or API server ──▶ Subject ──▶ steps ──▶ sentence, next command

It changes nothing. Dials and requests for pods are made only if they are asked for.
"""

from .next_command import Asked
from .path_step import PathStep
from .reading import Subject, read_subject
from .render import render_json, render_text
from .steps import Explanation, explain

__all__ = [
    "Asked",
    "Explanation",
    "PathStep",
    "Subject",
    "explain",
    "read_subject",
    "render_json",
    "render_text",
]

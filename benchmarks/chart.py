"""Draws the report's picture: bars as plain SVG, without a library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 860
LEFT = 190
RIGHT = 70
BAR, GAP, GROUP_GAP = 13, 3, 16
TOP = 96

COLOURS = {
    "go": "#9aa0a6",
    "haproxy": "#6f9bd1",
    "haproxy-newer": "#9fc0e8",
    "haproxy-client": "#3f6aa3",
    "nginx": "#8e6bb0",
    "ours": "#e07b39",
    "ours-local": "#f2b134",
    "ours-node": "#f0a57a",
    "direct": "#e8eaed",
    "dnat": "#d5d9dd",
    "kube-proxy": "#4a5a8c",
    "ours-kernel": "#3b8f5a",
    "ours-sockets": "#8cc63f",
}
OTHER = "#888888"

STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#202124}.title{font-size:15px;font-weight:600}"
    ".value{font-size:11px;fill:#5f6368}.one{stroke:#5f6368;stroke-dasharray:3 3}"
)


@dataclass(frozen=True, slots=True)
class Group:
    """The bars of one load, by way."""

    title: str
    values: dict[str, float]


def draw_bars(
    title: str, labels: dict[str, str], groups: Sequence[Group], *, are_ratios: bool = True
) -> str:
    """Return an SVG of horizontal bars.

    Args:
        title: The meaning of the bars' lengths.
        labels: The legend's label of each way, in order.
        groups: One group per load; a way without a value has no bar.
        are_ratios: Whether the figures are ratios, so that 1 is marked.
    """
    most = max((v for group in groups for v in group.values.values()), default=1.0)
    unit = (WIDTH - LEFT - RIGHT) / (max(most, 1.0) if are_ratios else most or 1.0)
    digits = ".2f" if are_ratios else ",.0f"
    parts, y = [], TOP
    for group in groups:
        bars = [(way, group.values[way]) for way in labels if way in group.values]
        height = len(bars) * (BAR + GAP)
        parts.append(
            f'<text x="{LEFT - 10}" y="{y + height / 2 + 2:.0f}" text-anchor="end">'
            f"{escape(group.title)}</text>"
        )
        for way, value in bars:
            parts.append(
                f'<rect x="{LEFT}" y="{y}" width="{max(value, 0) * unit:.1f}" height="{BAR}" '
                f'fill="{COLOURS.get(way, OTHER)}"/>'
                f'<text class="value" x="{LEFT + max(value, 0) * unit + 5:.1f}" y="{y + BAR - 3}">'
                f"{value:{digits}}</text>"
            )
            y += BAR + GAP
        y += GROUP_GAP
    one = f'<path class="one" d="M{LEFT + unit:.1f} {TOP - 8}V{y - GROUP_GAP + 4}"/>'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            f'<rect width="{WIDTH}" height="{y}" fill="#ffffff"/>',
            f'<text class="title" x="16" y="26">{escape(title)}</text>',
            *_legend(labels),
            *parts,
            *([one] if are_ratios else []),
            "</svg>\n",
        ]
    )


def _legend(labels: dict[str, str]) -> list[str]:
    parts, x, y = [], 16.0, 42
    for way, label in labels.items():
        colour = COLOURS.get(way, OTHER)
        # A letter has a width of about half an em.
        width = 17 + 6.6 * len(label) + 18
        if x + width > WIDTH:
            x, y = 16.0, y + 18
        parts.append(
            f'<rect x="{x:.0f}" y="{y}" width="12" height="12" fill="{colour}"/>'
            f'<text x="{x + 17:.0f}" y="{y + 10}">{escape(label)}</text>'
        )
        x += width
    return parts

"""Draws bars as SVG: one panel per measure, one bar per contestant, on a logarithmic scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10
from xml.sax.saxutils import escape

_WIDTH = 760
_LABEL = 150
_VALUE = 90
_BAR = 16
_GAP = 6
_PANEL_GAP = 26
_COLOURS = {"kernel-supervisor": "#2f6fb5", "bare loop": "#8a8f98"}
_OTHERS = "#c9a36a"


@dataclass(frozen=True)
class Panel:
    """One measure: a title and, per contestant, the value and how it is spelt."""

    title: str
    bars: Sequence[tuple[str, float, str]]

    @property
    def height(self) -> int:
        """In pixels."""
        return 24 + len(self.bars) * (_BAR + _GAP)


def svg(panels: Sequence[Panel]) -> str:
    """The drawing; shorter bars are better."""
    height = sum(panel.height + _PANEL_GAP for panel in panels) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    top = 16
    for panel in panels:
        parts += _panel(panel, top)
        top += panel.height + _PANEL_GAP
    return "\n".join([*parts, "</svg>\n"])


def _panel(panel: Panel, top: int) -> list[str]:
    parts = [f'<text x="8" y="{top + 12}" font-weight="bold" fill="#222">{escape(panel.title)}</text>']
    values = [max(value, 1e-9) for _, value, _ in panel.bars]
    # From the power of ten below the least: every bar can be seen.
    low, high = floor(log10(min(values)) - 0.05), log10(max(values))
    room = _WIDTH - _LABEL - _VALUE - 16
    for number, ((name, _, text), value) in enumerate(zip(panel.bars, values, strict=True)):
        y = top + 24 + number * (_BAR + _GAP)
        length = max(2.0, room * (log10(value) - low) / (high - low))
        colour = _COLOURS.get(name, _OTHERS)
        parts += [
            f'<text x="{_LABEL - 8}" y="{y + 12}" text-anchor="end" fill="#222">{escape(name)}</text>',
            f'<rect x="{_LABEL}" y="{y}" width="{length:.1f}" height="{_BAR}" rx="2" fill="{colour}"/>',
            f'<text x="{_LABEL + length + 6:.1f}" y="{y + 12}" fill="#222">{escape(text)}</text>',
        ]
    return parts

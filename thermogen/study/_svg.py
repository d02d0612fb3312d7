"""Figures as part of the page: SVG whose colours follow the theme of the reader."""

import re

from markupsafe import Markup, escape

from .. import plots

_WIDE = 560  # CSS pixels beyond which a drawing scrolls on a narrow page
_FONT = re.compile(r"'DejaVu Sans'[^;\"]*?sans-serif")
_TAG = re.compile(r"<[^>]*>")  # text and attributes write > as &gt;
_COLOUR = re.compile(r"#([0-9a-f]{6})\b")


def inline(figure: plots.Figure, name: str, alt: str) -> Markup:
    """A figure as an element of the page.

    Each colour becomes a variable of its own with the colour as its default, such as
    `var(--c-1f3a5f, #1f3a5f)`: the style sheet says what it is in the dark, and who stores the
    figure puts the default in its place.

    Args:
        figure: the figure.
        name: its name on the page.
        alt: what is seen.
    """
    svg = plots.figure_svg(figure, name)
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r">\s+<", "><", svg)
    used = {name for tag in _TAG.findall(svg) for name in re.findall(r"#([\w.-]+)[\")]", tag)}
    svg = _TAG.sub(lambda match: _themed(match[0], used), svg)  # a name is left as it is
    width = round(96 * figure.get_figwidth())
    size = "wide" if width > _WIDE else "narrow"
    head = f'<svg class="{size}" role="img" aria-label="{escape(alt)}" style="width: {width}px"'
    return Markup(re.sub(r'^<svg width="[^"]*" height="[^"]*"|^<svg', lambda _: head, svg, count=1))


def _themed(tag: str, used: set[str]) -> str:
    tag = re.sub(r' xmlns(:\w+)?="[^"]*"', "", tag)  # within HTML they are known
    tag = re.sub(r' id="([^"]*)"', lambda match: _identifier(match, used), tag)
    return _COLOUR.sub(r"var(--c-\1, #\1)", _FONT.sub("system-ui, sans-serif", tag))


def _identifier(match: re.Match[str], used: set[str]) -> str:
    """Names that something refers to stay; that of a group we look for becomes its class."""
    if match[1] == "branches":
        return ' class="branches"'
    return match[0] if match[1] in used else ""

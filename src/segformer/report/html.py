"""HTML of a report: the page, its sections, and the texts in them."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from segformer.config import Color
from segformer.files import write_bytes
from segformer.report.style import STYLE


def page(title: str, subtitle: str, *sections: str) -> str:
    """Return a whole HTML document; its content security policy forbids scripts and requests to the network."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><header><h1>{escape(title)}</h1><p>{escape(subtitle)}</p></header>\n"
        f"<main>{''.join(sections)}</main></body></html>\n"
    )


def write_page(path: Path, html: str) -> None:
    """Write a page to a file.  If this fails, no incomplete file is left behind."""
    write_bytes(path, html.encode())


def section(title: str, *fragments: str) -> str:
    """Return a section: a box with a heading and the fragments below it."""
    return f"<section><h2>{escape(title)}</h2>{''.join(fragments)}</section>\n"


def paragraph(text: str) -> str:
    """Return a paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def facts(pairs: Mapping[str, str]) -> str:
    """Return a tile for each fact: the key in small type, the value in large type below it."""
    tiles = (f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in pairs.items())
    return f'<dl class="facts">{"".join(tiles)}</dl>'


def key_values(pairs: Mapping[str, str], notes: Mapping[str, str] | None = None) -> str:
    """Return one line for each key and value.  If ``notes`` has the key, the line is marked and the note is added."""
    lines = "".join(_pair(key, value, (notes or {}).get(key)) for key, value in pairs.items())
    return f'<dl class="pairs">{lines}</dl>'


def _pair(key: str, value: str, note: str | None) -> str:
    texts = f"<dt>{escape(key)}</dt><dd>{escape(value)}"
    if note is None:
        return f"<div>{texts}</dd></div>"
    return f'<div class="marked">{texts}<small>{escape(note)}</small></dd></div>'


def columns(*fragments: str) -> str:
    """Put fragments side by side in two columns, or in one column if the page is narrow."""
    return f'<div class="columns">{"".join(f"<div>{fragment}</div>" for fragment in fragments)}</div>'


def legend(classes: Sequence[str], palette: Sequence[Color]) -> str:
    """Return a list of the classes, each with a square of its color."""
    return css_legend(classes, [css_color(color) for color in palette])


def css_legend(names: Sequence[str], colors: Sequence[str]) -> str:
    """Return a list of names, each with a square of its CSS color."""
    entries = (f"<li>{swatch(color)}{escape(name)}</li>" for name, color in zip(names, colors, strict=True))
    return f'<ul class="legend">{"".join(entries)}</ul>'


def css_color(color: Color) -> str:
    """Return a color in CSS notation.

    >>> css_color((128, 64, 0))
    'rgb(128,64,0)'
    """
    red, green, blue = color
    return f"rgb({red},{green},{blue})"


def swatch(color: str) -> str:
    """Return a small square that is filled with a CSS color."""
    return f'<span class="swatch" style="background:{color}"></span>'

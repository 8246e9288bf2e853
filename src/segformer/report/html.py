"""Building blocks of HTML reports: one file, no script, no request; light, dark, phone and print.

Every block returns an HTML fragment and escapes the text it is given:

    curves = line_chart({"loss": points}, x_label="step", y_label="loss", smooth=True)
    write_page(path, page("Training", "mit_b0 on toy data", section("Curves", curves)))
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from segformer.files import write_bytes

Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

NUM_LINE_COLOURS = 6  # --c0 to --c5 in STYLE
NUM_BUCKETS = 600  # of a chart's width: one per one or two pixels of the page
LONG_SIDE = 640
MAX_NUMBERED, MAX_CONFUSED = 30, 60  # classes of a confusion matrix with numbers in its cells, and of any


def page(title: str, subtitle: str, *sections: str) -> str:
    """Return the whole document; its content security policy forbids scripts and requests."""
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
    """Write the page, all of it or nothing."""
    write_bytes(path, html.encode())


def section(title: str, *fragments: str) -> str:
    """Set fragments below a heading, on a card of their own."""
    return f"<section><h2>{escape(title)}</h2>{''.join(fragments)}</section>\n"


def paragraph(text: str) -> str:
    """Set plain text; markup in it is shown, not obeyed."""
    return f"<p>{escape(text)}</p>"


def facts(pairs: Mapping[str, str]) -> str:
    """Set a tile per fact: the key small, the value large below it."""
    tiles = (f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in pairs.items())
    return f'<dl class="facts">{"".join(tiles)}</dl>'


def key_values(pairs: Mapping[str, str], notes: Mapping[str, str] | None = None) -> str:
    """Set a line per pair; one whose key has a note stands out, and the note follows its value."""
    lines = "".join(_pair(key, value, (notes or {}).get(key)) for key, value in pairs.items())
    return f'<dl class="pairs">{lines}</dl>'


def columns(*fragments: str) -> str:
    """Set fragments side by side, two where the page is wide enough for them."""
    return f'<div class="columns">{"".join(f"<div>{fragment}</div>" for fragment in fragments)}</div>'


def table(headers: Sequence[str], rows: Sequence[Sequence[str | float | None]]) -> str:
    """Set columns without text as numbers, to the right; None and NaN are shown as a dash."""
    textual = [any(isinstance(row[i], str) for row in rows) for i in range(len(headers))]
    kinds = ["" if is_text else ' class="number"' for is_text in textual]
    head = "".join(f"<th{kind}>{escape(header)}</th>" for kind, header in zip(kinds, headers, strict=True))
    body = [[f"<td{kind}>{_cell(value)}</td>" for kind, value in zip(kinds, row, strict=True)] for row in rows]
    return _table(head, ["".join(cells) for cells in body])


def class_table(classes: Sequence[str], palette: Sequence[Colour], columns: Mapping[str, Sequence[float]]) -> str:
    """Set a row per class: each score in [0, 1] as a bar and a number, NaN (the class does not occur) as a dash."""
    head = "<th>class</th>" + "".join(f'<th class="number">{escape(name)}</th>' for name in columns)
    body = [
        f"<td>{_swatch(colour)}{escape(name)}</td>" + "".join(_score(score) for score in scores)
        for name, colour, *scores in zip(classes, _css(palette), *columns.values(), strict=True)
    ]
    return _table(head, body)


def confusion(counts: npt.NDArray[np.int64], classes: Sequence[str]) -> str:
    """Set (K, K) pixel counts as a heat map: a row per label, a column per prediction, each cell its share of the row.

    With more than 30 classes the cells have no numbers; with more than 60 a sentence takes the place of the map.
    """
    if len(classes) > MAX_CONFUSED:
        return paragraph(f"A map of {len(classes)} x {len(classes)} classes would be too fine to read: it is left out.")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    head = "".join(f'<th scope="col" title="{escape(name)}"><span>{escape(name)}</span></th>' for name in classes)
    body = [
        f'<th scope="row" title="{escape(label)}">{escape(label)}</th>'
        + "".join(_confused(label, name, share, len(classes)) for name, share in zip(classes, row, strict=True))
        for label, row in zip(classes, shares.tolist(), strict=True)
    ]
    kind = "confusion" if len(classes) <= MAX_NUMBERED else "confusion dense"
    return f'<div class="{kind}">{_table("<td></td>" + head, body)}</div>'


def legend(classes: Sequence[str], palette: Sequence[Colour]) -> str:
    """List the classes, each after its colour."""
    return _legend(classes, _css(palette))


def pictures(rows: Sequence[tuple[str, Sequence[tuple[str, Pixels]]]], *, column_width: int | None = None) -> str:
    """Set per row a caption and, side by side below it, labelled (H, W, 3) images of at most 640 pixels a side.

    They share the page's width, or with ``column_width`` stand in columns of at least so many pixels.
    """
    columns = f"repeat(auto-fill, minmax(min(100%, {column_width}px), 1fr))"
    style = f' style="grid-template-columns: {columns}"' if column_width else ""
    return "".join(
        f'<div class="sample"><p>{escape(caption)}</p><div class="images"{style}>'
        f"{''.join(_figure(caption, label, image) for label, image in images)}</div></div>"
        for caption, images in rows
    )


def thumbnail(pixels: Pixels, width: int, height: int) -> Image.Image:
    """Shrink an (H, W, 3) image until it fits; what is small enough is left as it is."""
    image = Image.fromarray(pixels).convert("RGB")
    # Flat-coloured masks keep their exact colours; averaging would invent classes at the edges.
    is_flat = image.getcolors(256) is not None
    image.thumbnail((width, height), Image.Resampling.NEAREST if is_flat else Image.Resampling.LANCZOS)
    return image


def line_chart(
    series: Mapping[str, Sequence[tuple[float, float]]], *, x_label: str, y_label: str, smooth: bool = False
) -> str:
    """Draw lines through (x, y) points; a point that is not finite is left out.

    With ``smooth`` each curve is drawn faint, below its moving average.
    """
    curves = {name: points for name in series if len(points := _finite(series[name]))}
    if not curves:
        return f'<p class="soft">No values of {escape(y_label)} to draw.</p>'
    x_axis, y_axis = (_axis(values) for values in np.concatenate(list(curves.values())).T)
    colours = [f"var(--c{i % NUM_LINE_COLOURS})" for i in range(len(curves))]
    lines = "".join(
        f'<g stroke="{colour}">{_curve(points, x_axis, y_axis, smooth=smooth)}</g>'
        for colour, points in zip(colours, curves.values(), strict=True)
    )
    names = _legend(list(curves), colours) if len(curves) > 1 else ""
    ends = ", ".join(f"{name} ends at {points[-1, 1]:.4g}" for name, points in curves.items())
    return (
        f'<figure class="chart"><figcaption><b>{escape(y_label)}</b>{names}</figcaption>'
        '<div class="plot"><svg viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(f"{y_label} over {x_label}: {ends}")}">{_grid(x_axis, y_axis)}{lines}</svg>'
        f'{_tick_labels(x_axis, y_axis)}</div><p class="x-label">{escape(x_label)}</p></figure>'
    )


class _Axis(NamedTuple):
    low: float
    high: float
    ticks: list[float]

    def permille(self, values: npt.ArrayLike) -> Floats:
        return np.round((np.asarray(values, dtype=np.float64) - self.low) / (self.high - self.low) * 1000, 1)


def _axis(values: Floats) -> _Axis:
    """Span the values, with about five ticks at multiples of 1, 2 or 5 times a power of ten."""
    low, high = float(values.min()), float(values.max())
    # A percent of room shows the tick at 100,000 where steps end at 99,999; a constant curve runs through the middle.
    margin = (high - low) / 100 or abs(low) / 10 or 1.0
    low, high = low - margin, high + margin
    least_step = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(least_step))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least_step)
    return _Axis(low, high, [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)])


def _finite(points: Sequence[tuple[float, float]]) -> Floats:
    array = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    return array[np.isfinite(array).all(axis=1)]


def _moving_average(points: Floats) -> Floats:
    window = np.ones(len(points) // 30 | 1)
    y = np.convolve(points[:, 1], window, "same") / np.convolve(np.ones(len(points)), window, "same")
    return np.column_stack([points[:, 0], y])


def _thin(points: Floats) -> Floats:
    """Keep both ends, and the lowest and highest point of every bucket: no spike is lost."""
    if len(points) <= 2 * NUM_BUCKETS:
        return points
    keep = {0, len(points) - 1}
    for bucket in np.array_split(np.arange(len(points)), NUM_BUCKETS):
        y = points[bucket, 1]
        keep |= {int(bucket[y.argmin()]), int(bucket[y.argmax()])}
    return points[sorted(keep)]


def _places(points: Floats, x_axis: _Axis, y_axis: _Axis) -> list[str]:
    x, y = _thin(points).T
    return [f"{a:g},{b:g}" for a, b in zip(x_axis.permille(x), 1000 - y_axis.permille(y), strict=True)]


def _curve(points: Floats, x_axis: _Axis, y_axis: _Axis, *, smooth: bool) -> str:
    places = _places(_moving_average(points) if smooth else points, x_axis, y_axis)
    faint = f'<polyline class="faint" points="{" ".join(_places(points, x_axis, y_axis))}"/>' if smooth else ""
    dots = f'<path class="dot" d="{"".join(f"M{place}h0" for place in places)}"/>' if len(places) <= 30 else ""
    return f'{faint}<polyline class="line" points="{" ".join(places)}"/>{dots}'


def _grid(x_axis: _Axis, y_axis: _Axis) -> str:
    upright = "".join(f"M{x:g},0V1000" for x in x_axis.permille(x_axis.ticks))
    level = "".join(f"M0,{1000 - y:g}H1000" for y in y_axis.permille(y_axis.ticks))
    return f'<path class="grid" d="{upright}{level}"/>'


def _tick_labels(x_axis: _Axis, y_axis: _Axis) -> str:
    """HTML rather than SVG text, so that it keeps its size while the drawing stretches with the page."""
    places = [("x", "left", tick, x_axis.permille(tick)) for tick in x_axis.ticks]
    places += [("y", "bottom", tick, y_axis.permille(tick)) for tick in y_axis.ticks]
    return "".join(
        f'<span class="{name}" style="{side}:{place / 10:.4g}%" aria-hidden="true">{_short(tick)}</span>'
        for name, side, tick, place in places
    )


def _short(value: float) -> str:
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if size <= abs(value) < 1000 * size:
            return f"{value / size:.6g}{suffix}"
    return f"{value:.6g}".replace("e-0", "e-")


def _css(palette: Sequence[Colour]) -> list[str]:
    return [f"rgb({red},{green},{blue})" for red, green, blue in palette]


def _swatch(colour: str) -> str:
    return f'<span class="swatch" style="background:{colour}"></span>'


def _legend(names: Sequence[str], colours: Sequence[str]) -> str:
    entries = (f"<li>{_swatch(colour)}{escape(name)}</li>" for name, colour in zip(names, colours, strict=True))
    return f'<ul class="legend">{"".join(entries)}</ul>'


def _table(head: str, body: Sequence[str]) -> str:
    rows = "".join(f"<tr>{row}</tr>" for row in body)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _cell(value: str | float | None) -> str:
    if isinstance(value, str):
        return escape(value)
    if value is None or math.isnan(value):
        return "\N{EN DASH}"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    return f"{value:,.3f}" if value == 0 or abs(value) >= 0.001 else f"{value:.2e}"


def _pair(key: str, value: str, note: str | None) -> str:
    texts = f"<dt>{escape(key)}</dt><dd>{escape(value)}"
    if note is None:
        return f"<div>{texts}</dd></div>"
    return f'<div class="marked">{texts}<small>{escape(note)}</small></dd></div>'


def _score(value: float) -> str:
    bar = "" if math.isnan(value) else f'<span class="bar"><i style="width:{value:.1%}"></i></span>'
    return f'<td class="number">{bar}{_cell(float(value))}</td>'


def _confused(label: str, name: str, share: float, num_classes: int) -> str:
    """Leave a cell blank where its percentage would be 0."""
    kinds = ["own"] * (label == name) + ["strong"] * (share > 0.7)
    kind = f' class="{" ".join(kinds)}"' if kinds else ""
    if share < 0.005:
        return f"<td{kind}></td>"
    number = f"{100 * share:.0f}" if num_classes <= MAX_NUMBERED else ""
    title = escape(f"{label}, predicted as {name}: {100 * share:.1f} %")
    return f'<td{kind} style="--share:{share:.2f}" title="{title}">{number}</td>'


def _figure(caption: str, label: str, pixels: Pixels) -> str:
    image = thumbnail(pixels, LONG_SIDE, LONG_SIDE)
    width, height = image.size
    return (
        f'<figure><img src="{_data_uri(image)}" alt="{escape(f"{caption}: {label}")}" width="{width}" '
        f'height="{height}" decoding="async"><figcaption>{escape(label)}</figcaption></figure>'
    )


def _data_uri(image: Image.Image) -> str:
    """Encode as JPEG or PNG, whichever is smaller: photographs favour the one, masks the other."""
    encodings = {}
    for kind in ("jpeg", "png"):
        buffer = io.BytesIO()
        image.save(buffer, kind, quality=88, optimize=True)
        encodings[kind] = buffer.getvalue()
    kind = min(encodings, key=lambda kind: len(encodings[kind]))
    return f"data:image/{kind};base64,{base64.b64encode(encodings[kind]).decode()}"


STYLE = """
:root { color-scheme: light dark; --ink: #18212d; --soft: #566273; --hair: #dfe4ea; --back: #f4f6f8; --card: #fff;
  --tile: #f4f6f8; --accent: #2456c8; --c0: #2456c8; --c1: #c2410c; --c2: #0d7a5f; --c3: #9333ea; --c4: #a16207;
  --c5: #be185d }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #9ba8b8; --hair: #2c3542;
  --back: #0f141a; --card: #171d26; --tile: #1f2731; --accent: #8ab0ff; --c0: #8ab0ff; --c1: #ff9f6b; --c2: #5fd3ad;
  --c3: #cda2ff; --c4: #e8c468; --c5: #ff8fb8 } }
* { box-sizing: border-box; margin: 0 }
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; color: var(--ink);
  background: var(--back); max-width: 1040px; margin: auto; padding: 48px 20px 64px; -webkit-text-size-adjust: 100% }
header { padding: 0 4px 28px } header p, .soft { color: var(--soft) } header p { font-size: 1.05rem }
h1 { font-size: 2rem; line-height: 1.2; letter-spacing: -.02em; font-weight: 680; margin-bottom: 6px }
h2 { font-size: 1.15rem; letter-spacing: -.01em; font-weight: 650 }
section { background: var(--card); border: 1px solid var(--hair); border-radius: 14px; padding: 24px 28px 28px;
  margin-bottom: 20px }
section > * + * { margin-top: 18px } section > p { max-width: 70ch }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)); gap: 12px }
.facts div { background: var(--tile); border-radius: 10px; padding: 12px 13px 13px }
.facts dt { color: var(--soft); font-size: .8rem }
.facts dd { font-size: 1.2rem; line-height: 1.3; font-weight: 620; letter-spacing: -.01em; overflow-wrap: anywhere }
.pairs { columns: 2 340px; column-gap: 36px; font-size: .85rem; font-variant-numeric: tabular-nums }
.pairs div { display: flex; justify-content: space-between; gap: 18px; padding: 4px 8px; break-inside: avoid;
  border-bottom: 1px solid var(--hair) } .pairs dt { color: var(--soft); flex: none; max-width: 55% }
.pairs dd { text-align: right; min-width: 0 } .pairs dt, .pairs dd { overflow-wrap: anywhere }
.pairs small { display: block; color: var(--soft) } .pairs .marked { background: var(--tile); font-weight: 620;
  box-shadow: inset 3px 0 var(--accent) } .marked small { font-weight: 400 }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr)); gap: 22px 28px }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums }
th { color: var(--soft); font-size: .8rem; font-weight: 550; text-align: left; vertical-align: bottom }
th, td { padding: 7px 12px; border-bottom: 1px solid var(--hair) } th:first-child, td:first-child { padding-left: 0 }
th:last-child, td:last-child { padding-right: 0 } tbody tr:last-child td { border-bottom: 0 }
.number { text-align: right; white-space: nowrap }
.swatch { display: inline-block; width: 13px; height: 13px; border-radius: 4px; margin-right: 9px; vertical-align: -1px;
  box-shadow: inset 0 0 0 1px #8886 }
.bar { display: inline-block; width: 90px; height: 6px; border-radius: 3px; background: var(--hair); margin-right: 12px;
  vertical-align: 2px; overflow: hidden } .bar i { display: block; height: 100%; background: var(--accent) }
.confusion table { width: auto; font-size: .72rem }
.confusion th, .confusion td { border: 0; padding: 0 } .confusion th { color: var(--ink); font-size: .75rem }
.confusion tbody th { position: sticky; left: 0; background: var(--card); padding-right: 10px; max-width: 140px;
  text-align: right; vertical-align: middle; white-space: nowrap; overflow: hidden; text-overflow: ellipsis }
.confusion thead span { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 150px; margin: 0 auto 7px;
  overflow: hidden; text-overflow: ellipsis; white-space: nowrap; display: block; line-height: 1.2 }
.confusion tbody td { min-width: 25px; height: 25px; text-align: center; border: 1px solid var(--card);
  background: var(--tile) linear-gradient(rgb(36 86 200 / var(--share, 0)) 0 100%) }
.confusion .own { outline: 1px solid var(--soft); outline-offset: -2px } .confusion .strong { color: #fff }
.dense tbody td { min-width: 13px; height: 13px } .dense table { line-height: 1 } .dense th { font-size: .65rem }
.legend { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: .85rem }
.chart figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 4px 18px; font-size: .9rem }
.chart b { font-weight: 600 } .chart .swatch { width: 16px; height: 3px; vertical-align: 4px; box-shadow: none }
.plot { position: relative; height: 260px; margin: 14px 14px 26px 52px }
.plot svg { display: block; width: 100%; height: 100%; overflow: visible }
.plot path, .plot polyline { fill: none; vector-effect: non-scaling-stroke; stroke-linejoin: round;
  stroke-linecap: round }
.grid { stroke: var(--hair) } .faint { opacity: .3 }
.line { stroke-width: 1.75px } .dot { stroke-width: 6px }
.x, .y, .x-label { color: var(--soft); font-size: .75rem; font-variant-numeric: tabular-nums;
  white-space: nowrap }
.x { position: absolute; top: calc(100% + 6px); transform: translateX(-50%) } .x-label { text-align: right }
.y { position: absolute; right: calc(100% + 10px); transform: translateY(50%) }
.sample + .sample { margin-top: 24px } .sample > p { font-size: .9rem; font-weight: 550; margin-bottom: 8px }
.images { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 220px), 1fr)); gap: 12px }
.images figure { max-width: 640px } .images img { display: block; width: 100%; height: auto; border-radius: 8px }
.images figcaption { color: var(--soft); font-size: .8rem; margin-top: 5px }
@media (max-width: 560px) { body { padding: 28px 12px 40px } section { padding: 18px 16px 20px }
  h1 { font-size: 1.6rem } .facts { grid-template-columns: 1fr 1fr } .bar { width: 22px; margin-right: 5px }
  th, td { padding: 7px 6px }
  .plot { height: 210px; margin-left: 42px } }
@media print { * { print-color-adjust: exact; -webkit-print-color-adjust: exact }
  body { background: none; padding: 0; font-size: 11pt }
  section { border: 0; padding: 0 0 18px } h2 { break-after: avoid }
  .chart, .sample, .facts div, tr { break-inside: avoid } }
"""

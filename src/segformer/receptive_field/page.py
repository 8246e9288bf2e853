"""Results of a measurement of receptive fields: a page, Figure 3 as a PNG, the numbers as JSON."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from segformer import report
from segformer.arrays import Array, to_pixels
from segformer.config import Size
from segformer.data.dataset import Sample
from segformer.data.images import displayed
from segformer.files import write_bytes, write_json
from segformer.models.fused.segmenter import FusedSegmenter
from segformer.models.interfaces import Network
from segformer.models.segmenter import Segmenter
from segformer.receptive_field.attention import Attention, attention_maps
from segformer.receptive_field.field import ReceptiveField, ReceptiveFields
from segformer.receptive_field.measure import read_pixels
from segformer.receptive_field.probes import DECODER
from segformer.report.heat_map import SCALE, central, field_picture, figure, marked, over_image

Fields = Mapping[str, ReceptiveFields]

PAGE = "erf.html"
FIGURE = "erf.png"
NUMBERS = "erf.json"
PERCENTAGES = (50, 95)  # of the mass
WINDOW = 4  # the side of the local window is the image's shorter side divided by this
COLUMN = 160  # minimum width of a picture on the page, in pixels: five fit side by side
GLANCE = "Percentages: the smallest part of the image that holds 95 % of an output's mass."
ATTENTION = (
    "Where the central position attends. Violet is the minimum of a map and yellow its maximum; the label gives the "
    "maximum as a multiple of the mean, which is 1 where all keys weigh the same. Keys are on the reduced grid (Eq. 2)."
)
METHOD = (
    "The field of an output is the gradient of its positive features at the central position, summed over channels, "
    "with respect to the normalised input: absolute values, summed over the input's channels and averaged over the "
    "images. The features of the decoder are those that its classifier reads."
)


@dataclass(frozen=True, eq=False)
class AttendedImage:
    """An image, and where each head attends from its central position."""

    pixels: Array
    """(H, W, 3) uint8"""
    attention: Sequence[Attention]
    """Attention of every block; empty where the network has none."""


def attend(model: Network, sample: Sample, size: Size) -> AttendedImage:
    """Compute the attention of a model for one sample, brought to a size."""
    pixels = read_pixels(sample, model.card, size)
    shown = displayed(to_pixels(pixels))
    if not isinstance(model, Segmenter | FusedSegmenter):
        return AttendedImage(shown, ())
    image = model.normalize(pixels[None].to(model.device))
    return AttendedImage(shown, attention_maps(model.encoder, image, (size[0] // 2, size[1] // 2)))


def write_results(out: Path, fields: Fields, about: Mapping[str, str], attended: AttendedImage) -> None:
    """Write erf.html, erf.png and erf.json into a folder; ``about`` says what was measured, with the key "size"."""
    write_json(out / NUMBERS, {**about, "models": numbers(fields)})
    buffer = io.BytesIO()
    maps = {label: {name: total[name].map for name in total.sums} for label, total in fields.items()}
    figure(maps, columns_of(fields)).save(buffer, "png", optimize=True)
    write_bytes(out / FIGURE, buffer.getvalue())
    report.write_page(out / PAGE, page(fields, about, attended))


def page(fields: Fields, about: Mapping[str, str], attended: AttendedImage) -> str:
    """Return the page as HTML."""
    attention = [report.section("Attention", *attention_pictures(attended))] if attended.attention else []
    return report.page(
        "Effective receptive fields",
        f"Where in the image each output of {', '.join(fields)} looks; Figure 3 of the paper.",
        report.section("At a glance", report.facts(covered_shares(fields, about)), report.paragraph(GLANCE)),
        report.section("Fields", report.paragraph(SCALE), report.pictures(field_rows(fields), column_width=COLUMN)),
        report.section("Numbers", report.table(*number_table(fields)), report.paragraph(explanation(fields))),
        report.section("Mass within a distance of the center", report.columns(*curves(fields))),
        *attention,
        report.section("How it was measured", report.paragraph(METHOD), report.key_values(about)),
    )


def summary(total: ReceptiveFields) -> str:
    """Describe the fields of the deepest stage, and of the decoder where there is one, in one line.

    >>> field = np.ones((10, 10))
    >>> summary(ReceptiveFields({"stage 4": field, "decoder": field}, {"stage 4": 32, "decoder": 4}, 1))
    '95 % of the mass: stage 4 95.0 % of the image, decoder 95.0 %'
    """
    first, *others = (f"{name} {100 * total[name].covered(0.95):.1f} %" for name in final_outputs(total))
    return ", ".join([f"95 % of the mass: {first} of the image", *others])


def final_outputs(total: ReceptiveFields) -> list[str]:
    """Return the names of the deepest stage, and of the decoder where there is one."""
    stages = [name for name in total.sums if name != DECODER]
    return [*stages[-1:], *(name for name in total.sums if name == DECODER)]


def numbers(fields: Fields) -> dict[str, Any]:
    """Return the measured numbers of each output of each network as JSON values."""
    return {
        label: {name: field_numbers(total[name]) for name in total.sums} | {"images": total.count}
        for label, total in fields.items()
    }


def field_numbers(field: ReceptiveField) -> dict[str, float]:
    """Return the numbers of one field; areas and lengths in pixels."""
    figures: dict[str, float] = {"stride": field.stride}
    for percentage in PERCENTAGES:
        share = percentage / 100
        figures |= {
            f"area_{percentage}": field.area(share),
            f"share_of_image_{percentage}": field.covered(share),
            f"side_{percentage}": field.side(share),
            f"radius_{percentage}": field.radius(share),
        }
    return figures | {"window": window_of(field), "share_outside_window": field.outside(window_of(field))}


def window_of(field: ReceptiveField) -> int:
    """Return the side of the local window in pixels, which is the same for all outputs and networks."""
    height, width = field.map.shape
    return int(min(height, width)) // WINDOW


def columns_of(fields: Fields) -> list[str]:
    """Return the names of all outputs, in order."""
    return list(dict.fromkeys(name for total in fields.values() for name in total.sums))


def covered_shares(fields: Fields, about: Mapping[str, str]) -> dict[str, str]:
    """Return the share of the image that holds 95 % of the mass of each network's last outputs."""
    shown = {
        f"{label}: {name}": f"{100 * total[name].covered(0.95):.1f} %"
        for label, total in fields.items()
        for name in final_outputs(total)
    }
    return {"images": f"{next(iter(fields.values())).count}", "size": about["size"], **shown}


def field_rows(fields: Fields) -> list[tuple[str, list[tuple[str, Array]]]]:
    """Draw every field, and its middle enlarged, so that local and non-local parts show as in Figure 3."""
    rows = []
    for label, total in fields.items():
        rows.append((label, [(name, field_picture(total[name].map)) for name in total.sums]))
        zoomed = [(f"{name}, enlarged", field_picture(central(total[name].map))) for name in total.sums]
        rows.append((f"{label}: the central quarter of each side", zoomed))
    return rows


def number_table(fields: Fields) -> tuple[list[str], list[list[str | float | None]]]:
    """Return headings and rows of the table of numbers."""
    headings = ["model", "output", "stride", "50 %: area, px", "95 %: area, px", "share", "side, px", "radius, px"]
    rows: list[list[str | float | None]] = [
        [
            label,
            name,
            field.stride,
            field.area(0.5),
            field.area(0.95),
            percent_text(field.covered(0.95)),
            round(field.side(0.95)),
            round(field.radius(0.95)),
            percent_text(field.outside(window_of(field))),
        ]
        for label, total in fields.items()
        for name in total.sums
        for field in [total[name]]
    ]
    return [*headings, "outside"], rows


def percent_text(share: float) -> str:
    """Write a share in percent, so that a narrow table does not break it."""
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def explanation(fields: Fields) -> str:
    """Explain the columns of the table of numbers."""
    total = next(iter(fields.values()))
    window = window_of(total[next(iter(total.sums))])
    return (
        "Area: number of pixels in the smallest set that holds 50 % or 95 % of the mass. Share and side: the area for "
        "95 % as a share of the image and as the side of a square. Radius: that of the disc around the center that "
        f"holds 95 % of the mass. Outside: share of the mass outside the central {window} x {window} pixels."
    )


def curves(fields: Fields) -> list[str]:
    """Draw the mass within a distance: a chart for each network, then one that compares the deepest stages."""
    charts = [
        report.line_chart(
            {name: mass_by_distance(total[name]) for name in total.sums}, x_label="pixels", y_label=f"mass, {label}"
        )
        for label, total in fields.items()
    ]
    if len(fields) > 1:
        last = {label: final_outputs(total)[0] for label, total in fields.items()}
        series = {f"{label}, {last[label]}": mass_by_distance(total[last[label]]) for label, total in fields.items()}
        charts.append(report.line_chart(series, x_label="pixels", y_label="mass, deepest stages"))
    return charts


def mass_by_distance(field: ReceptiveField) -> list[tuple[float, float]]:
    """Return 100 points (distance from the central pixel up to the corner, share of the mass within it)."""
    radii = np.linspace(0, np.hypot(*field.center), 100)
    return list(zip(radii.tolist(), field.within(radii).tolist(), strict=True))


def attention_pictures(attended: AttendedImage) -> list[str]:
    """Draw over the image the mean over heads for every block, and each head of the last block of each stage."""
    image = attended.pixels
    attention = attended.attention
    center = (image.shape[0] // 2, image.shape[1] // 2)
    last = {block.stage: block for block in attention}
    rows = [("The query: the central position", [("image", marked(image, center))])]
    means = [overlaid(f"stage {b.stage}, block {b.block}", b.weights.mean(dim=0), image) for b in attention]
    rows.append(("Mean over the heads, every block", means))
    for stage, block in last.items():
        pictures = [overlaid(f"head {number}", head, image) for number, head in enumerate(block.weights, start=1)]
        rows.append((f"Stage {stage}, block {block.block}: each head", pictures))
    return [report.paragraph(ATTENTION), report.pictures(rows, column_width=COLUMN)]


def overlaid(label: str, weights: Tensor, image: Array) -> tuple[str, Array]:
    """Return a label with the map's peak, and the map drawn over the image.  (h, w), (H, W, 3) -> (H, W, 3)"""
    values = weights.float().cpu().numpy()
    return f"{label}: peak {values.max() / values.mean():.3g} x mean", over_image(values, image)

"""What came of effective receptive fields: a page, Figure 3 as a PNG, the numbers as JSON."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from segformer.config import Size
from segformer.data.dataset import Sample
from segformer.data.images import displayed
from segformer.files import write_bytes, write_json
from segformer.models.encoders.mit import MixTransformer
from segformer.models.segmenter import Segmenter
from segformer.receptive_field.attention import Attention, attention_maps
from segformer.receptive_field.field import ReceptiveField, ReceptiveFields
from segformer.receptive_field.measure import pixels_of
from segformer.receptive_field.probes import DECODER
from segformer.report import html as report
from segformer.report.heat_map import SCALE, central, field_picture, figure, marked, over_image

Pixels = NDArray[np.uint8]
Fields = Mapping[str, ReceptiveFields]

PAGE, FIGURE, NUMBERS = "erf.html", "erf.png", "erf.json"
SHARES = (0.5, 0.95)
WINDOW = 4  # the local window's side is this part of the image's shorter one
COLUMN = 160  # least width of a picture on the page, so that five fit side by side
GLANCE = "Percentages: the smallest part of the image that holds 95 % of an output's mass."
ATTENTION = (
    "Where the central position attends. Violet is a map's own minimum, yellow its maximum, which the label gives as a "
    "multiple of the mean: 1 where all keys weigh the same. Keys are on the reduced grid (Eq. 2)."
)
METHOD = (
    "The field of an output is the gradient of its features at the central position, summed over channels where they "
    "are positive, with respect to the normalised input: absolute values, summed over the input's channels, averaged "
    "over the images. The decoder's features are those that its classifier reads."
)


@dataclass(frozen=True, eq=False)
class Picture:
    """An image, and where each head attends to from its central position."""

    pixels: Pixels
    """(H, W, 3)"""
    attention: Sequence[Attention]
    """Of no block where the encoder is no Mix Transformer."""


def picture_of(model: Segmenter, sample: Sample, size: Size) -> Picture:
    """Compute the attention for one sample, brought to a size."""
    pixels = pixels_of(sample, model.card, size)
    shown = displayed(pixels.permute(1, 2, 0).numpy())
    if not isinstance(model.encoder, MixTransformer):
        return Picture(shown, ())
    image = model.normalize(pixels[None].to(model.device))
    return Picture(shown, attention_maps(model.encoder, image, (size[0] // 2, size[1] // 2)))


def write_results(out: Path, fields: Fields, about: Mapping[str, str], picture: Picture) -> None:
    """Write erf.html, erf.png and erf.json into a folder; ``about`` says what was measured."""
    write_json(out / NUMBERS, {**about, "models": numbers(fields)})
    buffer = io.BytesIO()
    maps = {label: {name: total[name].map for name in total.sums} for label, total in fields.items()}
    figure(maps, columns_of(fields)).save(buffer, "png", optimize=True)
    write_bytes(out / FIGURE, buffer.getvalue())
    report.write_page(out / PAGE, page(fields, about, picture))


def page(fields: Fields, about: Mapping[str, str], picture: Picture) -> str:
    """Return the page."""
    attended = [report.section("Attention", *attention_pictures(picture))] if picture.attention else []
    return report.page(
        "Effective receptive fields",
        f"Where in the image each output of {', '.join(fields)} looks; Figure 3 of the paper.",
        report.section("At a glance", report.facts(headline(fields, about)), report.paragraph(GLANCE)),
        report.section("Fields", report.paragraph(SCALE), report.pictures(field_rows(fields), column_width=COLUMN)),
        report.section("Numbers", report.table(*number_table(fields)), report.paragraph(explanation(fields))),
        report.section("Mass within a distance of the centre", report.columns(*curves(fields))),
        *attended,
        report.section("How it was measured", report.paragraph(METHOD), report.key_values(about)),
    )


def summary(total: ReceptiveFields) -> str:
    """One line on the deepest stage, and on the decoder where there is one.

    >>> field = np.ones((10, 10))
    >>> summary(ReceptiveFields({"stage 4": field, "decoder": field}, {"stage 4": 32, "decoder": 4}, 1))
    '95 % of the mass: stage 4 95.0 % of the image, decoder 95.0 %'
    """
    first, *others = (f"{name} {100 * total[name].covered(0.95):.1f} %" for name in final_outputs(total))
    return ", ".join([f"95 % of the mass: {first} of the image", *others])


def final_outputs(total: ReceptiveFields) -> list[str]:
    """The deepest stage, and the decoder where there is one."""
    stages = [name for name in total.sums if name != DECODER]
    return [*stages[-1:], *(name for name in total.sums if name == DECODER)]


def numbers(fields: Fields) -> dict[str, Any]:
    """Return what is measured of each output of each network, as JSON values."""
    return {
        label: {name: field_numbers(total[name]) for name in total.sums} | {"images": total.count}
        for label, total in fields.items()
    }


def field_numbers(field: ReceptiveField) -> dict[str, float]:
    """Return the numbers of one field; areas and lengths in pixels."""
    figures: dict[str, float] = {"stride": field.stride}
    for share in SHARES:
        figures |= {
            f"area {share:.0%}": field.area(share),
            f"share of the image {share:.0%}": field.covered(share),
            f"side {share:.0%}": field.side(share),
            f"radius {share:.0%}": field.radius(share),
        }
    return figures | {"window": window_of(field), "share outside of the window": field.outside(window_of(field))}


def window_of(field: ReceptiveField) -> int:
    """Side of the local window, in pixels: the same for all outputs and networks."""
    height, width = field.map.shape
    return int(min(height, width)) // WINDOW


def columns_of(fields: Fields) -> list[str]:
    """Names of all outputs, in order."""
    return list(dict.fromkeys(name for total in fields.values() for name in total.sums))


def headline(fields: Fields, about: Mapping[str, str]) -> dict[str, str]:
    """Return the share of the image that holds 95 % of the mass, of the last outputs."""
    shown = {
        f"{label}: {name}": f"{100 * total[name].covered(0.95):.1f} %"
        for label, total in fields.items()
        for name in final_outputs(total)
    }
    return {"images": f"{next(iter(fields.values())).count}", "size": about["size"], **shown}


def field_rows(fields: Fields) -> list[tuple[str, list[tuple[str, Pixels]]]]:
    """Picture all fields, and the middle of each enlarged: local beside non-local, as in Figure 3."""
    rows = []
    for label, total in fields.items():
        rows.append((label, [(name, field_picture(total[name].map)) for name in total.sums]))
        zoomed = [(f"{name}, enlarged", field_picture(central(total[name].map))) for name in total.sums]
        rows.append((f"{label}: the central quarter of each side", zoomed))
    return rows


def number_table(fields: Fields) -> tuple[list[str], list[list[str | float | None]]]:
    """Return headings and rows."""
    headings = ["model", "output", "stride", "50 %: area, px", "95 %: area, px", "share", "side, px", "radius, px"]
    rows: list[list[str | float | None]] = [
        [
            label,
            name,
            field.stride,
            field.area(0.5),
            field.area(0.95),
            f"{100 * field.covered(0.95):.1f} %",
            round(field.side(0.95)),
            round(field.radius(0.95)),
            f"{100 * field.outside(window_of(field)):.1f} %",
        ]
        for label, total in fields.items()
        for name in total.sums
        for field in [total[name]]
    ]
    return [*headings, "outside"], rows


def explanation(fields: Fields) -> str:
    """Say what the columns mean."""
    total = next(iter(fields.values()))
    window = window_of(total[next(iter(total.sums))])
    return (
        "Area: pixels in the smallest set that holds 50 % or 95 % of the mass; for 95 % also as a share of the image, "
        "as the side of a square, and the radius of the disc around the centre that holds as much. Outside: share of "
        f"the mass outside of the central {window} x {window} pixels."
    )


def curves(fields: Fields) -> list[str]:
    """Draw the mass against the distance: of each network's outputs, then of the deepest stages together."""
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
    """Shares of the mass within 100 distances from the central pixel, up to the corner."""
    radii = np.linspace(0, np.hypot(*field.center), 100)
    return list(zip(radii.tolist(), field.within(radii).tolist(), strict=True))


def attention_pictures(picture: Picture) -> list[str]:
    """Set the heads of each stage's last block over the image, and the mean over heads of every block."""
    image, attention = picture.pixels, picture.attention
    center = (image.shape[0] // 2, image.shape[1] // 2)
    last = {block.stage: block for block in attention}
    rows = [("The query: the central position", [("image", marked(image, center))])]
    means = [attended(f"stage {b.stage}, block {b.block}", b.weights.mean(dim=0), image) for b in attention]
    rows.append(("Mean over the heads, every block", means))
    for stage, block in last.items():
        pictures = [attended(f"head {number}", head, image) for number, head in enumerate(block.weights, start=1)]
        rows.append((f"Stage {stage}, block {block.block}: each head", pictures))
    return [report.paragraph(ATTENTION), report.pictures(rows, column_width=COLUMN)]


def attended(label: str, weights: Tensor, image: Pixels) -> tuple[str, Pixels]:
    """Label a map with its peak, and lay it over the image."""
    values = weights.cpu().numpy()
    return f"{label}: peak {values.max() / values.mean():.3g} x mean", over_image(values, image)

"""Write the measured receptive fields as a page, as a PNG like Figure 3 of the paper, and as numbers in JSON."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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
from segformer.receptive_field.field import Fields, ReceptiveField
from segformer.receptive_field.measure import read_pixels
from segformer.receptive_field.numbers import explanation, final_outputs, number_table, numbers
from segformer.report.heat_map import SCALE, central, field_picture, figure, marked, over_image

PAGE = "erf.html"
FIGURE = "erf.png"
NUMBERS = "erf.json"
COLUMN = 160  # minimum width of a picture on the page, in pixels: five fit side by side
GLANCE = (
    "Each percentage is the size of the smallest part of the image that contains 95 % of the mass of an output's "
    "receptive field."
)
ATTENTION = (
    "Attention of the query at the central position. In each map, violet is the minimum and yellow the maximum. The "
    "label gives the maximum as a multiple of the mean; it is 1 if all keys have the same weight. Keys are on the "
    "reduced grid (Eq. 2)."
)
METHOD = (
    "The receptive field of an output is computed from its features at the central position. The positive features are "
    "summed over channels, and the sum is differentiated with respect to the normalized input. The absolute values of "
    "this gradient are summed over the input's channels and averaged over the images. The features of the decoder are "
    "the input of its classifier."
)


@dataclass(frozen=True, eq=False)
class AttendedImage:
    """An image, and the attention of the query at its central position."""

    pixels: Array
    """The image as it is shown.  (H, W, 3) uint8"""
    attention: Sequence[Attention]
    """Attention of every block; empty if the network has no efficient self-attention."""


def attend(model: Network, sample: Sample, size: Size) -> AttendedImage:
    """Resize and crop the image of a sample to a size, and return it with the attention of a model."""
    pixels = read_pixels(sample, model.card, size)
    shown = displayed(to_pixels(pixels))
    if not isinstance(model, Segmenter | FusedSegmenter):
        return AttendedImage(shown, ())
    image = model.normalize(pixels[None].to(model.device))
    return AttendedImage(shown, attention_maps(model.encoder, image, (size[0] // 2, size[1] // 2)))


def write_results(out: Path, fields: Fields, about: Mapping[str, str], attended: AttendedImage) -> None:
    """Write erf.html, erf.png and erf.json into a folder; ``about`` describes the measurement, its "size" included."""
    write_json(out / NUMBERS, {**about, "models": numbers(fields)})
    buffer = io.BytesIO()
    maps = {label: {name: total[name].map for name in total.sums} for label, total in fields.items()}
    figure(maps, columns_of(fields)).save(buffer, "png", optimize=True)
    write_bytes(out / FIGURE, buffer.getvalue())
    report.write_page(out / PAGE, page(fields, about, attended))


def page(fields: Fields, about: Mapping[str, str], attended: AttendedImage) -> str:
    """Return the page about receptive fields and attention as HTML."""
    attention = [report.section("Attention", *attention_pictures(attended))] if attended.attention else []
    return report.page(
        "Effective receptive fields",
        f"Where in the image each output of {', '.join(fields)} looks, as in Figure 3 of the paper.",
        report.section("At a glance", report.facts(covered_shares(fields, about)), report.paragraph(GLANCE)),
        report.section(
            "Receptive fields", report.paragraph(SCALE), report.pictures(field_rows(fields), column_width=COLUMN)
        ),
        report.section("Numbers", report.table(*number_table(fields)), report.paragraph(explanation(fields))),
        report.section("Mass within a distance of the center", report.columns(*curves(fields))),
        *attention,
        report.section("How it was measured", report.paragraph(METHOD), report.key_values(about)),
    )


def columns_of(fields: Fields) -> list[str]:
    """Return the names of the outputs of all networks, each name once."""
    return list(dict.fromkeys(name for total in fields.values() for name in total.sums))


def covered_shares(fields: Fields, about: Mapping[str, str]) -> dict[str, str]:
    """Return the entries of "At a glance": the number of images, their size, and the share that the field covers.

    That is the share of the image that holds 95 % of the receptive field's mass, for the deepest stage and the decoder
    of each network.
    """
    shown = {
        f"{label}: {name}": f"{100 * total[name].covered(0.95):.1f} %"
        for label, total in fields.items()
        for name in final_outputs(total)
    }
    return {"images": f"{next(iter(fields.values())).count}", "size": about["size"], **shown}


def field_rows(fields: Fields) -> list[tuple[str, list[tuple[str, Array]]]]:
    """Draw every receptive field twice, as in Figure 3: whole, to show its extent, and its center enlarged."""
    rows = []
    for label, total in fields.items():
        rows.append((label, [(name, field_picture(total[name].map)) for name in total.sums]))
        zoomed = [(f"{name}, enlarged", field_picture(central(total[name].map))) for name in total.sums]
        rows.append((f"{label}: the central quarter of each side", zoomed))
    return rows


def curves(fields: Fields) -> list[str]:
    """Draw the mass by distance from the center: a chart for each network, then a comparison of the deepest stages."""
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
    """Return 100 points (distance from the central pixel, share of the mass within this distance), up to the corner."""
    radii = np.linspace(0, np.hypot(*field.center), 100)
    return list(zip(radii.tolist(), field.within(radii).tolist(), strict=True))


def attention_pictures(attended: AttendedImage) -> list[str]:
    """Draw attention maps over the image.

    For every block, the mean over its heads is drawn; for the last block of each stage, each head is drawn as well.
    """
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
    """Draw a map of attention weights over the image, and return (label, pixels).  (h, w), (H, W, 3) -> (H, W, 3)

    The maximum of the map, as a multiple of its mean, is appended to the label.
    """
    values = weights.float().cpu().numpy()
    return f"{label}: peak {values.max() / values.mean():.3g} x mean", over_image(values, image)

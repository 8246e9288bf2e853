"""The sizes of receptive fields in numbers: as one line of text, as JSON values and as a table."""

from typing import Any

from segformer.receptive_field.field import Fields, ReceptiveField, ReceptiveFields
from segformer.receptive_field.probes import DECODER

PERCENTAGES = (50, 95)  # of the mass
WINDOW = 4  # the side of the local window is the image's shorter side divided by this


def summary(total: ReceptiveFields) -> str:
    """Describe in one line the receptive fields of the deepest stage and of the decoder, if there is one.

    >>> import numpy as np
    >>> field = np.ones((10, 10))
    >>> summary(ReceptiveFields({"stage 4": field, "decoder": field}, {"stage 4": 32, "decoder": 4}, 1))
    'smallest area with 95 % of the mass: stage 4 95.0 % of the image, decoder 95.0 %'
    """
    first, *others = (f"{name} {100 * total[name].covered(0.95):.1f} %" for name in final_outputs(total))
    return ", ".join([f"smallest area with 95 % of the mass: {first} of the image", *others])


def final_outputs(total: ReceptiveFields) -> list[str]:
    """Return the names of the deepest stage and of the decoder, if there is one."""
    stages = [name for name in total.sums if name != DECODER]
    return [*stages[-1:], *(name for name in total.sums if name == DECODER)]


def numbers(fields: Fields) -> dict[str, Any]:
    """Return ``field_numbers`` for each output of each network, and the number of images, as JSON values."""
    return {
        label: {name: field_numbers(total[name]) for name in total.sums} | {"images": total.count}
        for label, total in fields.items()
    }


def field_numbers(field: ReceptiveField) -> dict[str, float]:
    """Return the stride and the sizes of one receptive field; lengths and areas are in pixels, shares from 0 to 1."""
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
    """Return the side in pixels of the central window that counts as local: a quarter of the image's shorter side."""
    height, width = field.map.shape
    return int(min(height, width)) // WINDOW


def number_table(fields: Fields) -> tuple[list[str], list[list[str | float | None]]]:
    """Return the headings and the rows of a table of sizes, with one row for each output of each network."""
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
    """Write a share in percent, with a no-break space so that a narrow table keeps it on one line."""
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def explanation(fields: Fields) -> str:
    """Return a text that explains the columns of ``number_table``."""
    total = next(iter(fields.values()))
    window = window_of(total[next(iter(total.sums))])
    return (
        "Mass: sum of a receptive field over all pixels. Area: number of pixels in the smallest set that contains 50 % "
        "or 95 % of the mass. Share: the 95 % area as a share of the image. Side: side of a square with the 95 % area. "
        "Radius: radius of the disc around the center that contains 95 % of the mass. Outside: share of the mass "
        f"outside the central {window} x {window} pixels."
    )

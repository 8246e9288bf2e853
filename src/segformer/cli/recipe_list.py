"""``segformer train --list``: the recipes, grouped by the paper's tables, and the parts that a recipe can name."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from segformer.cli.table import print_paragraph, print_table
from segformer.config import Recipe
from segformer.recipes import GROUPS, RECIPES

HEADINGS = ("recipe", "steps", "batch", "crop", "")
OTHERS = "Others"


def print_recipes() -> None:
    """Print every recipe with the paper's result or, if there is none, with the purpose of the recipe."""
    for group, names in grouped(GROUPS, RECIPES).items():
        rows = [recipe_row(RECIPES[name]) for name in names]
        print_table(HEADINGS, rows, title=group)
        print()
    print_parts()
    print_paragraph("To train: segformer train RECIPE --data FOLDER [--train.init-from ENCODER] [--devices N]")
    print_paragraph(
        "The paper's runs start from an encoder trained on ImageNet-1K; the paper used 8 GPUs of 32 GB (V100)."
    )


def print_parts() -> None:
    """Print the data sets, encoders, decoders and losses that options of ``segformer train`` can name."""
    from segformer.data.sources import SOURCES
    from segformer.models.decoders import DECODERS
    from segformer.models.encoders import ENCODERS
    from segformer.ops.losses import LOSSES

    parts: dict[str, Mapping[str, Any]] = {
        "Data sets (--data NAME=FOLDER)": SOURCES,
        "Encoders (--model.encoder)": ENCODERS,
        "Decoders (--model.decoder)": DECODERS,
        "Losses (--train.loss, --train.loss-options)": LOSSES,
    }
    for title, table in parts.items():
        print_table(("name", ""), [[name, description_of(row)] for name, row in table.items()], title=title)
        print()


def description_of(row: Any) -> str:
    """Return the description of a data set, encoder, decoder or loss, with its options and their defaults, if any."""
    options = ", ".join(f"{name} {value:g}" for name, value in getattr(row, "options", {}).items())
    return f"{row.description} (options: {options})" if options else str(row.description)


def grouped(groups: Mapping[str, Sequence[str]], recipes: Mapping[str, Recipe]) -> dict[str, list[str]]:
    """Return the names of the recipes in each group; recipes without a group are in a last group, "Others"."""
    listed = {group: [name for name in names if name in recipes] for group, names in groups.items()}
    known = {name for names in listed.values() for name in names}
    others = [name for name in recipes if name not in known]
    return listed | ({OTHERS: others} if others else {})


def recipe_row(recipe: Recipe) -> list[str]:
    """Return the row of a recipe in the list; its last cell is the paper's result or, if there is none, the purpose."""
    height, width = recipe.data.crop
    result = re.match(r"mIoU [^;(]*", recipe.paper)  # leaves out the number of the table, and the hardware
    text = result[0].strip() if result else recipe.description
    return [recipe.name, f"{recipe.train.steps:,}", str(recipe.train.batch_size), f"{height}x{width}", text]

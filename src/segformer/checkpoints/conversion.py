"""Conversion of any model that can be read into a checkpoint of another project."""

from pathlib import Path

import torch

from segformer.checkpoints.formats import FORMATS
from segformer.checkpoints.key_table import State
from segformer.checkpoints.model_folder import load, read_weights, save
from segformer.errors import UserError
from segformer.files import write_folder
from segformer.validation import check_choice

MODEL_FOLDER = "segformer"


def targets() -> list[str]:
    """Return the names of the formats that ``convert`` writes; "segformer" is a model folder of this package."""
    return [MODEL_FOLDER, *(name for name, form in FORMATS.items() if form.write)]


def convert(source: str | Path, target: str | Path, to: str = MODEL_FOLDER) -> list[str]:
    """Write any model that ``load`` reads into the new folder ``target``, in one of the formats that ``targets`` lists.

    Returns a line for everything that was left out, changed or lost.  Raises a UserError where ``target`` exists, the
    source is no model, or the format cannot hold it.
    """
    check_choice("--to", to, targets())
    if Path(target).exists():
        raise UserError(f"{target} exists already; give a name that is free")
    weights = read_weights(source)
    model = load(weights)
    notes = list(weights.notes)
    if to == MODEL_FOLDER:
        save(model, target)
        return notes
    form = FORMATS[to]
    write = form.write
    assert write is not None
    form.check_card(model.card)
    state = two_logits(model.state_dict()) if model.card.model.binary else model.state_dict()
    write_folder(Path(target), lambda partial: write(state, model.card, partial))
    return notes + form.losses(model.card)


def two_logits(state: State) -> State:
    """Return the weights of a binary head as those of two classes, the first of which always has logit 0."""
    names = [f"decoder.classifier.{name}" for name in ("weight", "bias")]
    return {**state, **{name: torch.cat([torch.zeros_like(state[name]), state[name]]) for name in names}}

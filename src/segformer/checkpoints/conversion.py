"""Convert a model from any readable format to another project's checkpoint format, or to a model folder."""

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
    """Return the names of the formats that ``convert`` can write; "segformer" is this package's own model folder."""
    return [MODEL_FOLDER, *(name for name, form in FORMATS.items() if form.write)]


def convert(source: str | Path, target: str | Path, to: str = MODEL_FOLDER) -> list[str]:
    """Convert a model to another format and write it to the new folder ``target``.

    ``source`` is anything that ``load`` accepts, and ``to`` is one of ``targets()``.  Returns one note for each thing
    that was left out, changed or lost.  Raises a UserError if ``target`` exists, if ``source`` is not a model, or if
    the format cannot represent the model.
    """
    check_choice("--to", to, targets())
    if Path(target).exists():
        raise UserError(f"{target} already exists; choose another name")
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
    notes += form.losses(model.card)
    written = read_weights(target).card
    if written is not None and written.classes != model.card.classes and "class names" not in " ".join(notes):
        notes.append(f"{form.tables[0].name} does not keep this model's class names: {', '.join(model.card.classes)}")
    return notes


def two_logits(state: State) -> State:
    """Return a binary model's weights with its one-logit head converted to two logits; the first is always 0."""
    names = [f"decoder.classifier.{name}" for name in ("weight", "bias")]
    return {**state, **{name: torch.cat([torch.zeros_like(state[name]), state[name]]) for name in names}}

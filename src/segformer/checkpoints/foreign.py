"""Read checkpoints of other projects: recognize the format, rename the weights, and build a model card."""

import re
from dataclasses import replace

import torch
from torch import Tensor

from segformer.checkpoints.architecture import expected_state, read_architecture
from segformer.checkpoints.format import Format
from segformer.checkpoints.formats import FORMATS
from segformer.checkpoints.key_table import KeyTable, State, read
from segformer.checkpoints.weight_files import Checkpoint
from segformer.checkpoints.weights import Weights
from segformer.config import Color, EvalConfig, ModelCard, ModelConfig, default_palette
from segformer.data.sources import SOURCES
from segformer.errors import UserError

CLASSIFIER = ("decoder.classifier.weight", "decoder.classifier.bias")
OTHER_ARCHITECTURES = {  # regular expression of a tensor name -> the architecture that has such a tensor
    r".*layer1\.0\.conv1\.weight": "a ResNet",
    r".*pos_embed\d?": "a ViT or PVT, which have position embeddings",
    r".*relative_position_bias_table": "a Swin Transformer",
    r".*downsample_layers\.0\.0\.weight": "a ConvNeXt",
}


def translate(checkpoint: Checkpoint, source: str) -> Weights:
    """Return the weights of another project's checkpoint under our tensor names, in float32, with a model card.

    ``source`` is the path or hub id that the user gave.  The card is None if there is only an encoder.  Raises a
    UserError that names the file if its format is unknown or if its tensors do not fit.
    """
    try:
        form, table = recognize(checkpoint.state)
        config, num_classes = read_architecture(table, checkpoint.state)
        expected = expected_state(config, num_classes)
        if not table.has_decoder:
            expected = {name: tensor for name, tensor in expected.items() if name.startswith("encoder.")}
        prepared, changes = form.prepare(checkpoint.state)
        state, notes = read(table, prepared, expected)
    except UserError as error:
        raise UserError(f"{checkpoint.path}: {error}") from error
    notes += changes
    card = card_of(checkpoint, form, table, config, num_classes, source) if num_classes else None
    if card and num_classes == 1:
        card, state = two_classes(card, state)
        notes.append("converted the binary head with one logit z to two classes with logits 0 and z")
    state = {name: tensor if tensor.ndim == 0 else tensor.float() for name, tensor in state.items()}
    return Weights(source, config, card, state, tuple(notes))


def is_foreign(state: State) -> bool:
    """Whether the tensor names of a checkpoint belong to the format of another project."""
    return any(table.matches(state) for form in FORMATS.values() for table in form.tables)


def recognize(state: State) -> tuple[Format, KeyTable]:
    """Return the format and the key table that match the tensor names of a checkpoint.

    If several tables match, the one with the longest signature wins.  If none matches, raises a UserError that says
    what the checkpoint looks like.
    """
    for pattern, kind in OTHER_ARCHITECTURES.items():
        if any(re.fullmatch(pattern, key) for key in state):
            raise UserError(f"not a SegFormer checkpoint: it looks like {kind}")
    matching = [(form, table) for form in FORMATS.values() for table in form.tables if table.matches(state)]
    if not matching:
        raise UserError(
            f"not a SegFormer checkpoint of a known format ({', '.join(FORMATS)}); "
            f"the first of its {len(state)} tensors is '{next(iter(state))}'"
        )
    return max(matching, key=lambda match: len(match[1].signature))


def two_classes(card: ModelCard, state: dict[str, Tensor]) -> tuple[ModelCard, dict[str, Tensor]]:
    """Convert a head with one logit z to a head with two classes: a background with logit 0, and the class with z.

    The arg-max then chooses the class if z > 0, and the softmax probability of the class is the sigmoid of z.
    """
    names = ("background", *card.classes)
    doubled = {name: torch.cat([torch.zeros_like(state[name]), state[name]]) for name in CLASSIFIER}
    return replace(card, classes=names, palette=default_palette(2)), state | doubled


def card_of(
    checkpoint: Checkpoint, form: Format, table: KeyTable, config: ModelConfig, num_classes: int, source: str
) -> ModelCard:
    """Return a model card with the classes, palette and preprocessing that the checkpoint specifies, or defaults."""
    names = form.read_classes(checkpoint)
    if len(names) != num_classes:
        names = tuple(f"class_{k}" for k in range(num_classes))
    colors = form.read_palette(checkpoint)
    return ModelCard(
        model=config,
        preprocessing=form.read_preprocessing(checkpoint, config.in_channels),
        eval=EvalConfig(),
        classes=names,
        palette=colors if len(colors) == len(names) else palette_for(names),
        provenance={"source": source, "layout": table.name},
        license="unknown",
    )


def palette_for(names: tuple[str, ...]) -> tuple[Color, ...]:
    """Return the palette of a known data set with the same classes, or else a default palette of distinct colors."""
    for known in SOURCES.values():
        if known.classes and known.palette and _are_same_classes(known.classes, names):
            return known.palette
    return default_palette(len(names))


def _are_same_classes(ours: tuple[str, ...], theirs: tuple[str, ...]) -> bool:
    return len(ours) == len(theirs) and all(map(_is_same_class, ours, theirs))


def _is_same_class(ours: str, theirs: str) -> bool:
    """Whether two class names mean the same, ignoring case.

    ``theirs`` may list synonyms ("sofa; couch").  One of them must begin with ``ours``, or ``ours`` with one of them.
    """
    name = ours.lower()
    words = [word.strip().lower() for word in re.split("[;,]", theirs)]
    return any(word.startswith(name) or name.startswith(word) for word in words if word)

"""Any checkpoint of another project -> our names, and what is known about it."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segformer.checkpoints.formats import mmseg, nvlabs, smp, tao, transformers
from segformer.checkpoints.key_table import Layout, State, architecture, expected_state, read
from segformer.checkpoints.weight_files import Checkpoint
from segformer.config import Color, EvalConfig, ModelCard, ModelConfig, Preprocessing, default_palette
from segformer.data.sources import ade20k, cityscapes
from segformer.errors import UserError

LAYOUTS: tuple[Layout, ...] = (
    tao.TAO,  # before NVLABS, whose keys it has too
    nvlabs.NVLABS,
    smp.SMP,
    *transformers.LAYOUTS,
    mmseg.MMSEG,
    mmseg.MMSEG_BARE,
    nvlabs.NVLABS_ENCODER,
)
CLASSIFIER = ("decoder.classifier.weight", "decoder.classifier.bias")
KNOWN_PALETTES = (ade20k, cityscapes)
STRANGERS = (  # a key's pattern, and whose it is
    (r".*layer1\.0\.conv1\.weight", "a ResNet"),
    (r".*pos_embed\d?", "a ViT or PVT, which have position embeddings"),
    (r".*relative_position_bias_table", "a Swin Transformer"),
    (r".*downsample_layers\.0\.0\.weight", "a ConvNeXt"),
)


@dataclass(frozen=True)
class Foreign:
    """A checkpoint in our names; ``card`` is None where it has no decoder."""

    layout: Layout
    config: ModelConfig
    state: dict[str, Tensor]
    card: ModelCard | None
    notes: tuple[str, ...]


def translate(checkpoint: Checkpoint) -> Foreign:
    """Detect a checkpoint's layout by keys and shapes, and translate it.

    Raises a UserError that names the file and what does not fit.
    """
    try:
        layout = detect(checkpoint.state)
        config, num_classes = architecture(layout, checkpoint.state)
        expected = expected_state(config, num_classes)
        if not layout.has_decoder:
            expected = {name: tensor for name, tensor in expected.items() if name.startswith("encoder.")}
        source = tao.fold_bias(checkpoint.state) if layout is tao.TAO else checkpoint.state
        state, notes = read(layout, source, expected)
    except ValueError as error:
        raise UserError(f"{checkpoint.path}: {error}") from error
    if layout is tao.TAO:
        notes.append("folded the fusion's bias into the norm: the same function")
    card = describe(checkpoint, layout, config, num_classes) if num_classes else None
    if card and num_classes == 1:
        card, state = two_classes(card, state)
        notes.append("made the binary head one of two classes: the same function, its logit against 0")
    return Foreign(layout, config, state, card, tuple(notes))


def two_classes(card: ModelCard, state: dict[str, Tensor]) -> tuple[ModelCard, dict[str, Tensor]]:
    """Give a head with one logit z a background with logit 0: arg-max is then z > 0, softmax the sigmoid of z."""
    names = ("background", *card.classes)
    doubled = {name: torch.cat([torch.zeros_like(state[name]), state[name]]) for name in CLASSIFIER}
    return replace(card, classes=names, palette=default_palette(2)), state | doubled


def detect(state: State) -> Layout:
    """Return the layout that a checkpoint's keys belong to; raises a UserError that says what it looks like."""
    for pattern, whose in STRANGERS:
        if any(re.fullmatch(pattern, key) for key in state):
            raise UserError(f"no SegFormer checkpoint: it looks like {whose}")
    for layout in LAYOUTS:
        if layout.matches(state):
            return layout
    first = next(iter(state))
    raise UserError(f"no SegFormer checkpoint of a known layout (first of {len(state)} tensors: '{first}')")


def describe(checkpoint: Checkpoint, layout: Layout, config: ModelConfig, num_classes: int) -> ModelCard:
    """Return the card of a translated model: classes, palette, preprocessing, where it comes from."""
    names = _names(checkpoint.meta.get("CLASSES")) or transformers.class_names(checkpoint.config)
    if len(names) != num_classes:
        names = tuple(f"class_{k}" for k in range(num_classes))
    preprocessing = Preprocessing.for_channels(config.in_channels)
    if checkpoint.preprocessor:
        try:
            preprocessing = transformers.read_preprocessing(checkpoint.preprocessor, config.in_channels)
        except ValueError as error:
            raise UserError(f"{checkpoint.path / 'preprocessor_config.json'}: {error}") from error
    return ModelCard(
        model=config,
        preprocessing=preprocessing,
        eval=EvalConfig(),
        classes=names,
        palette=_palette(checkpoint.meta.get("PALETTE"), names),
        provenance={"source": Path(checkpoint.path).name, "layout": layout.name},
        licence="unknown",
    )


def _names(classes: Any) -> tuple[str, ...]:
    return tuple(str(name).strip() for name in classes) if isinstance(classes, list | tuple) else ()


def _palette(given: Any, names: tuple[str, ...]) -> tuple[Color, ...]:
    """Return the checkpoint's own palette, else that of a data set with the same classes, else distinct colours."""
    try:
        colors = tuple((int(r), int(g), int(b)) for r, g, b in given or ())
    except (TypeError, ValueError):
        colors = ()
    if len(colors) == len(names):
        return colors
    for known in KNOWN_PALETTES:
        if len(known.CLASSES) == len(names) and all(map(_alike, known.CLASSES, names)):
            palette: tuple[Color, ...] = known.PALETTE
            return palette
    return default_palette(len(names))


def _alike(ours: str, theirs: str) -> bool:
    """Whether two class names are the same but for case, synonyms ("sofa; couch") and a longer form."""
    words = [word.strip().lower() for word in re.split("[;,]", theirs)]
    return any(word.startswith(ours) or ours.startswith(word) for word in words if word)

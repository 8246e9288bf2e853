"""Detect the architecture of another project's checkpoint from the shapes of its tensors."""

import torch
from torch import Tensor

from segformer.checkpoints.key_table import KeyTable, Row, State, fill, take
from segformer.config import ModelConfig
from segformer.errors import UserError
from segformer.models.build import build_model, model_config
from segformer.models.encoders.mit import PATCHES
from segformer.published import MIT_SIZES


def read_architecture(table: KeyTable, state: State) -> tuple[ModelConfig, int]:
    """Return the model configuration and the number of classes of a checkpoint, 0 if it has no decoder.

    Raises a UserError if the sizes of the encoder do not match any of MiT-B0 ... B5.
    """
    stems = [_shape(table, state, "encoder.stages.{i}.embed.project", i) for i in range(4)]
    kernels = [(kernel, kernel) for kernel, _ in PATCHES]
    if [stem[2:] for stem in stems] != kernels:
        raise UserError(f"the kernels of the patch embeddings must be {kernels}, got {[stem[2:] for stem in stems]}")
    channels = tuple(stem[0] for stem in stems)
    depths = tuple(_depth(table, state, i) for i in range(4))
    encoder = next((n for n, size in MIT_SIZES.items() if (size.channels, size.depths) == (channels, depths)), None)
    if encoder is None:
        raise UserError(
            f"channels and depths must match one of MiT-B0 ... B5, got channels {channels} and depths {depths}"
        )
    width = MIT_SIZES[encoder].decoder_channels
    num_classes = 0
    if table.has_decoder:
        width = _shape(table, state, "decoder.projections.{i}")[0]
        num_classes = _shape(table, state, "decoder.classifier")[0]
    config = model_config(
        encoder,
        decoder_channels=width,
        in_channels=stems[0][1],
        norm_eps=table.norm_eps,
        embed_norm_eps=table.embed_norm_eps,
        align_corners=table.align_corners,
    )
    return config, num_classes


def expected_state(config: ModelConfig, num_classes: int) -> dict[str, Tensor]:
    """Return the state dict of a model with this configuration; its tensors are on the meta device, without values."""
    with torch.device("meta"):
        return build_model(config, num_classes=max(num_classes, 1)).state_dict()


def _row(table: KeyTable, ours: str) -> Row:
    return next(row for row in table.rows if ours in row.our_names)


def _shape(table: KeyTable, state: State, ours: str, stage: int = 0) -> tuple[int, ...]:
    """Return the shape of a module's weight in the checkpoint; ``ours`` is the module's name in the table."""
    name = fill(_row(table, ours).their_names[0], {"i": stage, "s": "weight"})
    shape = tuple(take(table, state, name).shape)
    if len(shape) < 2:
        raise UserError(f"tensor '{name}' must have 2 or 4 dimensions, got shape {shape}")
    return shape


def _depth(table: KeyTable, state: State, stage: int) -> int:
    """Count the blocks of a stage by a tensor that every block has: the weight of its first norm."""
    template = _row(table, "encoder.stages.{i}.blocks.{j}.norm1").their_names[0]
    depth = 0
    while fill(template, {"i": stage, "j": depth, "s": "weight"}) in state:
        depth += 1
    return depth

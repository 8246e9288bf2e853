"""Preparation of segmentation training: the data, the class weights, and the model in training mode."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from lightning_fabric import Fabric
from torch import nn

from segformer.checkpoints.fine_tuning import initialize
from segformer.checkpoints.model_folder import CONFIG, read_card, read_weights
from segformer.config import ModelCard, Recipe
from segformer.data.cache import cached
from segformer.data.dataset import DataSource, Pair, Sample, fingerprint, mask_name
from segformer.data.doctor.contents import balanced_weights
from segformer.data.doctor.diagnosis import diagnose
from segformer.data.images import Decoding
from segformer.data.loading import SegmentationDataset
from segformer.data.masks import read_mask
from segformer.data.transforms import SegmentationTransform
from segformer.errors import UserError
from segformer.models.build import build_from_card
from segformer.models.segmenter import Segmenter
from segformer.training.task import Note


def training_set(recipe: Recipe, source: DataSource) -> SegmentationDataset:
    """Return the training split with augmentation.

    Raises a UserError if the training or validation split is empty, or if the number of class weights is wrong.
    """
    for split in (recipe.data.train_split, recipe.data.val_split):
        if not source.samples(split):
            raise UserError(
                f"{source.name}: the split '{split}' has no images; add some, or set data.train_split or val_split"
            )
    weights = recipe.train.class_weights
    if weights is not None and len(weights) != len(source.classes):
        raise UserError(f"train.class_weights must have {len(source.classes)} values, got {len(weights)}")
    data = recipe.data
    samples = source.samples(data.train_split)
    return SegmentationDataset(
        cached(samples, data.cache) if data.cache else samples,
        source.table,
        SegmentationTransform(data, recipe.preprocessing),
        recipe.train.seed,
        training_decoding(recipe),
    )


def check_data(recipe: Recipe, source: DataSource) -> None:
    """Raise a UserError for the first fault that the data doctor finds without decoding the images."""
    used = {recipe.data.train_split, recipe.data.val_split}
    splits = {name: samples for name, samples in source.splits.items() if name in used}
    errors = diagnose(replace(source, splits=splits), cheap=True).errors
    if errors:
        first = errors[0]
        where = f"{first.files[0]}: " if first.files else ""
        also = f" (the first of {len(errors)} faults)" if len(errors) > 1 else ""
        raise UserError(f"{where}{first.problem}; {first.fix}{also}; see segformer inspect {source.name}")


def training_decoding(recipe: Recipe) -> Decoding:
    """Return how training images are decoded.

    With ``data.reduced_decode``, JPEGs may be decoded smaller, but not below the largest size of the random resize.
    """
    decoding = Decoding.from_model(recipe.model, recipe.preprocessing)
    data = recipe.data
    largest = (math.ceil(data.resize[0] * data.ratio[1]), math.ceil(data.resize[1] * data.ratio[1]))
    return replace(decoding, enough=largest) if data.reduced_decode else decoding


def build_initialized(recipe: Recipe, source: DataSource, last: Path, note: Note) -> Segmenter:
    """Return the model to train.

    If ``last`` exists, the model has the architecture saved there, and its weights are loaded later.  Otherwise it is
    initialized from ``train.init_from`` if that is set, or else at random.  The eps of each LayerNorm is also taken
    from ``train.init_from``, because the weights were trained with it.
    """
    card = training_card(recipe, source)
    if last.exists():
        return build_from_card(read_card(last / CONFIG))
    if recipe.train.init_from is None:
        return build_from_card(card)
    weights = read_weights(recipe.train.init_from)
    config = replace(card.model, norm_eps=weights.config.norm_eps, embed_norm_eps=weights.config.embed_norm_eps)
    provenance = card.provenance | {"init_from": recipe.train.init_from}
    model = build_from_card(replace(card, model=config, provenance=provenance))
    for line in initialize(model, weights):
        note(f"note: {recipe.train.init_from}: {line}")
    return model


def build_random(recipe: Recipe, source: DataSource) -> Segmenter:
    """Return a randomly initialized model of the recipe's architecture, even if the recipe sets ``train.init_from``."""
    return build_from_card(training_card(recipe, source))


def training_card(recipe: Recipe, source: DataSource) -> ModelCard:
    """Return the card (configuration, classes, origin) of the model that a recipe trains on this data."""
    return ModelCard(
        model=recipe.model,
        preprocessing=recipe.preprocessing,
        eval=recipe.eval,
        classes=source.classes,
        palette=source.palette,
        provenance={"source": "trained with segformer", "recipe": recipe.name, "data": Path(source.name).name},
        license="unknown",
    )


def class_weights_of(recipe: Recipe, source: DataSource) -> tuple[float, ...] | None:
    """Return the weight of each class in the loss, or None if all are the same.

    With ``train.balanced``, the weights are computed from the pixels of each class in the training masks.
    """
    if not recipe.train.balanced:
        return recipe.train.class_weights
    return balanced_weights(count_pixels(source, source.samples(recipe.data.train_split)))


def count_pixels(source: DataSource, samples: Sequence[Sample]) -> list[int]:
    """Return the number of pixels of each class; for samples that are pairs of files, only the masks are read."""
    counts = np.zeros(256, dtype=np.int64)
    for sample in samples:
        mask = read_mask(sample.mask) if type(sample) is Pair else sample.read()[1]
        counts += np.bincount(source.table.apply(mask, mask_name(sample)).ravel(), minlength=256)
    return cast("list[int]", counts[: len(source.classes)].tolist())


def prepare_model(model: Segmenter, recipe: Recipe, fabric: Fabric) -> Segmenter:
    """Put a model into training mode, and set up frozen layers, activation checkpointing and synchronized norms.

    Raises a UserError if the recipe freezes more stages than the encoder has.
    """
    config = recipe.train
    stages = len(model.encoder.named_stages())
    if config.frozen_stages > stages:
        raise UserError(
            f"train.frozen_stages must be at most {stages}, the number of stages of the encoder, "
            f"got {config.frozen_stages}"
        )
    model.train()
    model.encoder.freeze(config.frozen_stages)
    model.encoder.recompute(config.checkpointing)
    if config.frozen_norm:
        model.decoder.freeze_norm()
    if fabric.world_size > 1 and fabric.device.type == "cuda":  # torch has no synchronized norm for the CPU
        convert: Any = nn.SyncBatchNorm.convert_sync_batchnorm
        model = convert(model)
    return model


def step_in_words(recipe: Recipe, fabric: Fabric) -> str:
    """Return the batch size in words, with the division into devices and micro-batches if there is one.

    >>> from segformer.recipes import RECIPES
    >>> step_in_words(RECIPES["ade20k_b0"], Fabric(accelerator="cpu"))
    'of 16'
    """
    batch_size = recipe.train.batch_size
    devices = fabric.world_size
    share = batch_size // devices
    micro = min(recipe.train.micro_batch_size or share, share)
    if devices == 1 and micro == share:
        return f"of {batch_size}"
    return f"of {batch_size} = {f'{devices} devices x ' if devices > 1 else ''}{-(-share // micro)} x {micro}"


def data_facts(source: DataSource) -> dict[str, Any]:
    """Return what manifest.json records about the data."""
    return {
        "name": source.name,
        "classes": list(source.classes),
        "images": {split: len(samples) for split, samples in source.splits.items()},
        "fingerprint": fingerprint(source),
    }

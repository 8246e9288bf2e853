"""What a run needs before its first step: data, class weights, the model as the recipe wants it trained."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from lightning_fabric import Fabric
from rich.console import Console
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
from segformer.training.run_folder import RunFolder


def training_set(recipe: Recipe, source: DataSource) -> SegmentationDataset:
    """Return the augmented training split; raises a UserError where a split is empty or weights do not fit."""
    for split in (recipe.data.train_split, recipe.data.val_split):
        if not source.samples(split):
            raise UserError(
                f"{source.name}: no images in the split '{split}'; it takes some to train on and some to evaluate on"
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
    """Raise a UserError for the first fault that the doctor finds without decoding a file."""
    used = {recipe.data.train_split, recipe.data.val_split}
    splits = {name: samples for name, samples in source.splits.items() if name in used}
    errors = diagnose(replace(source, splits=splits), cheap=True).errors
    if errors:
        first, also = errors[0], f"; and {len(errors) - 1} more faults" if len(errors) > 1 else ""
        where = f"{first.files[0]}: " if first.files else ""
        raise UserError(f"{where}{first.problem}; {first.fix}{also}; see segformer inspect {source.name}")


def training_decoding(recipe: Recipe) -> Decoding:
    """Return how training images are decoded: where the recipe allows it, no larger than its largest resize needs."""
    decoding, data = Decoding.from_model(recipe.model, recipe.preprocessing), recipe.data
    largest = (math.ceil(data.resize[0] * data.ratio[1]), math.ceil(data.resize[1] * data.ratio[1]))
    return replace(decoding, enough=largest) if data.reduced_decode else decoding


def build_initialized(recipe: Recipe, source: DataSource, folder: RunFolder, console: Console) -> Segmenter:
    """Return the model to train: that of a run that goes on, one like ``train.init_from``, or a random one.

    LayerNorm's eps is a property of the weights: it is taken over with them.
    """
    card = describe(recipe, source)
    if folder.last.exists():
        return build_from_card(read_card(folder.last / CONFIG))
    if recipe.train.init_from is None:
        return build_from_card(card)
    weights = read_weights(recipe.train.init_from)
    config = replace(card.model, norm_eps=weights.config.norm_eps, embed_norm_eps=weights.config.embed_norm_eps)
    provenance = card.provenance | {"init_from": recipe.train.init_from}
    model = build_from_card(replace(card, model=config, provenance=provenance))
    for note in initialize(model, weights):
        console.print(f"note: {recipe.train.init_from}: {note}", soft_wrap=True)
    return model


def build_random(recipe: Recipe, source: DataSource) -> Segmenter:
    """Return a random model as the recipe has it, whatever it starts from."""
    return build_from_card(describe(recipe, source))


def describe(recipe: Recipe, source: DataSource) -> ModelCard:
    """Return the card of the model that a recipe trains on these data."""
    return ModelCard(
        model=recipe.model,
        preprocessing=recipe.preprocessing,
        eval=recipe.eval,
        classes=source.classes,
        palette=source.palette,
        provenance={"source": "trained with segformer", "recipe": recipe.name, "data": Path(source.name).name},
        license="unknown",
    )


def with_class_weights(recipe: Recipe, source: DataSource) -> Recipe:
    """Return the recipe with the weights that ``train.balanced`` asks for, from the masks of the training split."""
    if not recipe.train.balanced:
        return recipe
    pixels = count_pixels(source, source.samples(recipe.data.train_split))
    weights = balanced_weights(pixels)
    return replace(recipe, train=replace(recipe.train, balanced=False, class_weights=weights))


def count_pixels(source: DataSource, samples: Sequence[Sample]) -> list[int]:
    """Labelled pixels of each class; of image files only the masks are read."""
    counts = np.zeros(256, dtype=np.int64)
    for sample in samples:
        mask = read_mask(sample.mask) if type(sample) is Pair else sample.read()[1]
        counts += np.bincount(source.table.apply(mask, mask_name(sample)).ravel(), minlength=256)
    return cast("list[int]", counts[: len(source.classes)].tolist())


def prepare_model(model: Segmenter, recipe: Recipe, fabric: Fabric) -> Segmenter:
    """Put a model into training mode, with what the recipe freezes, recomputes and compiles."""
    config = recipe.train
    model.train()
    model.encoder.freeze(config.frozen_stages)
    model.encoder.recompute(config.checkpointing)
    if config.frozen_norm:
        model.decoder.freeze_norm()
    elif fabric.world_size > 1 and fabric.device.type == "cuda":  # torch has no synchronised norm for the CPU
        convert: Any = nn.SyncBatchNorm.convert_sync_batchnorm
        model.decoder = convert(model.decoder)
    if config.compile:
        model.compile()
    return model


def step_in_words(recipe: Recipe, fabric: Fabric) -> str:
    """Say how a step's batch is made up, where it is divided.

    >>> from segformer.recipes import RECIPES
    >>> step_in_words(RECIPES["ade20k_b0"], Fabric(accelerator="cpu"))
    'of 16'
    """
    config, world = recipe.train, fabric.world_size
    share = config.batch_size // world
    micro = min(config.micro_batch_size or share, share)
    if world == 1 and micro == share:
        return f"of {config.batch_size}"
    devices = f"{world} devices x " if world > 1 else ""
    return f"of {config.batch_size} = {devices}{-(-share // micro)} x {micro}"


def describe_data(source: DataSource) -> dict[str, Any]:
    """Return the part of the manifest that says what was trained on."""
    return {
        "name": source.name,
        "classes": list(source.classes),
        "images": {split: len(samples) for split, samples in source.splits.items()},
        "fingerprint": fingerprint(source),
    }

"""What a training step takes, measured on this machine before any training."""

import time
from dataclasses import dataclass, replace

import torch
from lightning_fabric import Fabric
from torch import Tensor

from segformer.config import IGNORE_INDEX, Recipe
from segformer.data.dataset import DataSource
from segformer.models.segmenter import Segmenter
from segformer.training.loader import StepBatches, build_loader
from segformer.training.optim import build_optimizer
from segformer.training.preparation import build_random, prepare_model, training_set
from segformer.training.step import optimizer_step

STEPS, SAMPLES = 3, 16  # measured ones
BYTES_PER_PARAMETER = 16  # weight, gradient and AdamW's two moments, in fp32


@dataclass(frozen=True)
class StepCost:
    """Time and memory of a step, and what the loader gives."""

    device: str
    seconds: float
    """Of a step, data aside."""
    bytes: int
    """Weights, gradients, optimizer state and what the backward pass keeps."""
    loader_rate: float
    """Images a second that one process decodes and augments."""


def step_cost(recipe: Recipe, source: DataSource, device: str = "cpu") -> StepCost:
    """Take a few steps and load a few samples, and say what they took; the data may not be changed by that.

    Raises what training on these data would raise.
    """
    seconds, size = model_cost(recipe, source, device)
    return StepCost(device, seconds, size, loader_rate(recipe, source))


def model_cost(recipe: Recipe, source: DataSource, device: str) -> tuple[float, int]:
    """Seconds of a step on random pixels (median of a few), and bytes."""
    fabric = Fabric(accelerator=device.partition(":")[0], devices=1)
    model = prepare_model(build_random(recipe, source), recipe, fabric)
    batch = random_batch(recipe, len(source.classes))
    kept = kept_bytes(model, batch[0][: recipe.train.micro_batch_size or len(batch[0])])
    wrapped, optimizer = fabric.setup(model, build_optimizer(model, recipe.train))
    batch = fabric.to_device(batch)
    weights = None if recipe.train.class_weights is None else torch.ones(len(source.classes), device=fabric.device)
    times = []
    for _ in range(1 + STEPS):
        started = time.perf_counter()
        optimizer_step(fabric, wrapped, optimizer, batch, recipe, weights).item()
        times.append(time.perf_counter() - started)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return sorted(times[1:])[STEPS // 2], kept + BYTES_PER_PARAMETER * parameters


def random_batch(recipe: Recipe, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return noise of the shape of a batch."""
    batch, crop = recipe.train.batch_size, recipe.data.crop
    images = torch.randn(batch, recipe.model.in_channels, *crop).contiguous(memory_format=torch.channels_last)
    masks = torch.randint(num_classes, (batch, *crop), dtype=torch.uint8)
    masks[:, :1] = IGNORE_INDEX
    return images, masks


def kept_bytes(model: Segmenter, images: Tensor) -> int:
    """Bytes that a forward pass keeps for the backward pass, each storage counted once."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = model(images)  # alive, so that no storage is used twice
    del logits
    return sum(sizes.values())


def loader_rate(recipe: Recipe, source: DataSource) -> float:
    """Images a second of one process, after one sample to warm up."""
    alone = replace(recipe, train=replace(recipe.train, steps=1 + SAMPLES, batch_size=1, workers=0))
    dataset = training_set(alone, source)
    batches = iter(build_loader(dataset, StepBatches(len(dataset), alone.train)))
    next(batches)
    started, threads = time.perf_counter(), torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker
    try:
        for _ in batches:
            pass
    finally:
        torch.set_num_threads(threads)
    return SAMPLES / (time.perf_counter() - started)

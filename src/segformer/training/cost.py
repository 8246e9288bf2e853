"""Time and memory of a training step, measured on this machine before training."""

import time
from dataclasses import dataclass, replace

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from segformer.config import IGNORE_INDEX, Recipe
from segformer.data.dataset import DataSource
from segformer.training.preparation import build_random
from segformer.training.segmentation import SegmentationTask
from segformer.training.step import optimizer_step

STEPS = 3  # number of steps that are timed
SAMPLES = 16  # number of samples whose loading is timed
BYTES_PER_PARAMETER = 16  # weight, gradient and AdamW's two moments, in fp32


@dataclass(frozen=True)
class StepCost:
    """Time and memory of a training step, and the speed of the loader."""

    device: str
    seconds: float
    """Time of a step, without loading its data."""
    bytes: int
    """Memory of weights, gradients, optimizer state and the activations stored for the backward pass."""
    loader_rate: float
    """Images per second that one process decodes and augments."""


def step_cost(recipe: Recipe, source: DataSource, device: str = "cpu") -> StepCost:
    """Measure a few training steps and the loading of a few samples; raises the same errors as training."""
    recipe = replace(recipe, train=replace(recipe.train, balanced=False))
    seconds, size = model_cost(recipe, source, device)
    return StepCost(device, seconds, size, loader_rate(recipe, source))


def model_cost(recipe: Recipe, source: DataSource, device: str) -> tuple[float, int]:
    """Return (median time of a step in seconds, memory in bytes), measured on a few steps with random pixels."""
    fabric = Fabric(accelerator=device.partition(":")[0], devices=1)
    task = SegmentationTask(recipe, source)
    model = build_random(recipe, source)
    module = task.prepare(model, fabric)
    batch = random_batch(recipe, len(source.classes))
    kept = kept_bytes(module, batch[0][: recipe.train.micro_batch_size or len(batch[0])])
    wrapped, optimizer = fabric.setup(module, task.build_optimizer(model))
    batch = fabric.to_device(batch)
    times = []
    for _ in range(1 + STEPS):
        started = time.perf_counter()
        optimizer_step(fabric, wrapped, optimizer, batch, task).item()
        times.append(time.perf_counter() - started)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return sorted(times[1:])[STEPS // 2], kept + BYTES_PER_PARAMETER * parameters


def random_batch(recipe: Recipe, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return random (images, masks) in the shape of a training batch."""
    size = (recipe.train.batch_size, recipe.model.in_channels, *recipe.data.crop)
    images = torch.randn(size).contiguous(memory_format=torch.channels_last)
    masks = torch.randint(num_classes, (size[0], *recipe.data.crop), dtype=torch.uint8)
    masks[:, :1] = IGNORE_INDEX
    return images, masks


def kept_bytes(module: nn.Module, images: Tensor) -> int:
    """Return the bytes of memory that a forward pass stores for the backward pass, without the parameters."""
    own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = module(images)  # kept alive, so that the address of a storage is not used again
    del outputs
    return sum(sizes.values())


def loader_rate(recipe: Recipe, source: DataSource) -> float:
    """Return how many images per second one process loads, timed after one sample to warm up."""
    alone = replace(recipe.train, steps=1 + SAMPLES, batch_size=1, workers=0)
    batches = iter(SegmentationTask(replace(recipe, train=alone), source).batches(0, rank=0, world_size=1))
    next(batches)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker process
    started = time.perf_counter()
    try:
        for _ in batches:
            pass
    finally:
        torch.set_num_threads(threads)
    return SAMPLES / (time.perf_counter() - started)

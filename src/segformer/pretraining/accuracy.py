"""Top-1 and top-5 accuracy of a classifier on a split."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from segformer.data.loading import iterate
from segformer.pretraining.augmentation import CenterCrop
from segformer.pretraining.imagenet import ClassificationDataset
from segformer.pretraining.recipes import PretrainRecipe
from segformer.resumable import OnProgress
from segformer.training.loader import build_loader


@torch.inference_mode()
def measure_accuracy(
    fabric: Fabric,
    model: nn.Module,
    samples: Sequence[tuple[Path, int]],
    recipe: PretrainRecipe,
    progress: OnProgress,
) -> dict[str, float]:
    """Return the accuracies {"top1", "top5"}, from 0 to 1, over all samples.

    Each process evaluates its share of the samples, and every process returns the accuracies over all samples.  The
    model is evaluated in evaluation mode; afterwards its previous mode is restored.
    """
    own = [(0, index) for index in range(fabric.global_rank, len(samples), fabric.world_size)]
    dataset = ClassificationDataset(samples, CenterCrop(recipe))
    size = recipe.micro_batch_size or recipe.batch_size // fabric.world_size
    loader = build_loader(dataset, workers=recipe.workers, sampler=own, batch_size=size)
    hits = torch.zeros(2, dtype=torch.int64, device=fabric.device)
    done = 0
    was_training = model.training
    model.eval()
    try:
        for batch in iterate(loader):
            images, labels = fabric.to_device(batch)
            hits += top_hits(model(images), labels)
            done += len(labels)
            progress(done, len(own))
    finally:
        model.train(was_training)
    total: Any = fabric.all_reduce(hits, reduce_op="sum")
    top1, top5 = total.tolist()
    return {"top1": top1 / len(samples), "top5": top5 / len(samples)}


def top_hits(logits: Tensor, labels: Tensor) -> Tensor:
    """Count the images whose label has the highest logit, and one of the five highest.  (B, K), (B,) -> (2,)"""
    found = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
    return torch.stack([found[:, 0].sum(), found.sum()])

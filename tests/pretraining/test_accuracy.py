from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from pretraining_runs import COLORS, SMALL, write_pictures
from segformer.config import IMAGENET_MEAN, IMAGENET_STD
from segformer.pretraining.accuracy import measure_accuracy, top_hits
from segformer.pretraining.imagenet import open_images


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


def test_hits_by_hand() -> None:
    logits = torch.tensor([[9.0, 1, 2, 3, 4, 5, 6], [9.0, 1, 2, 3, 4, 5, 6], [0.0, 6, 5, 4, 3, 2, 1]])
    assert top_hits(logits, torch.tensor([0, 1, 0])).tolist() == [1, 1]
    assert top_hits(logits, torch.tensor([6, 3, 1])).tolist() == [1, 3]
    assert top_hits(logits[:, :3], torch.tensor([0, 1, 2])).tolist() == [1, 3]  # fewer than five classes


class Brightest(nn.Module):
    """Says the class whose color an image's mean is nearest to."""

    def forward(self, images: Tensor) -> Tensor:
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        colors = torch.tensor([COLORS[name] for name in sorted(COLORS)])
        return -torch.cdist(images.mean((2, 3)) * std + mean, colors.float())


def test_every_image_counts_once_over_the_processes(pictures: Path) -> None:
    samples = open_images(str(pictures)).samples("val")
    samples = [*samples[:14], (samples[14][0], 0)]  # 15 images, the last with a wrong label
    recipe, seen = replace(SMALL, batch_size=4), []
    model: Any = Brightest()
    alone = measure_accuracy(Fabric(accelerator="cpu", devices=1), model, samples, recipe, lambda *n: seen.append(n))
    assert alone == {"top1": pytest.approx(14 / 15), "top5": 1.0}
    assert seen == [(4, 15), (8, 15), (12, 15), (15, 15)]
    parts = []

    class Part:
        """The process ``rank`` of four, which keeps its own count."""

        def __init__(self, rank: int) -> None:
            self.global_rank, self.world_size, self.device = rank, 4, torch.device("cpu")

        def to_device(self, batch: Any) -> Any:
            return batch

        def all_reduce(self, hits: Tensor, reduce_op: str) -> Tensor:
            assert reduce_op == "sum"
            parts.append(hits)
            return hits

    for rank in range(4):
        fabric: Any = Part(rank)
        measure_accuracy(fabric, model, samples, recipe, lambda *_: None)
    assert sum(parts).tolist() == [14, 15]  # type: ignore[union-attr]


def test_the_model_comes_back_in_its_mode(pictures: Path) -> None:
    samples = open_images(str(pictures)).samples("val")
    model = Brightest()
    for training in (True, False):
        model.train(training)
        measure_accuracy(Fabric(accelerator="cpu", devices=1), model, samples, SMALL, lambda *_: None)
        assert model.training is training

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segformer.config import ModelConfig, Recipe
from segformer.models.build import build_model
from segformer.models.decoders import DECODERS, DecoderRow
from segformer.models.decoders.all_mlp import AllMLPDecoder
from segformer.ops.losses import LOSSES, LossRow
from segformer.training import run as loop
from segformer.training.run_folder import read_metrics
from segformer.training.segmentation import train
from segformer.training.segmentation_loss import SegmentationLoss, TrainingModel
from small_runs import QUIET, recipe_for

WEIGHT = 0.4


class WithAuxiliaryHead(AllMLPDecoder):
    """The All-MLP decoder with a second classifier on the map of the third stage."""

    auxiliary_weights = (WEIGHT,)

    def __init__(self, channels: Sequence[int], num_classes: int, width: int) -> None:
        super().__init__(channels, num_classes, channels=width, dropout=0.0)
        self.auxiliary = nn.Conv2d(channels[2], num_classes, 1)

    def outputs(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return self(maps), self.auxiliary(maps[2])


@pytest.fixture
def auxiliary_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(channels: Sequence[int], strides: Sequence[int], num_classes: int, config: ModelConfig) -> nn.Module:
        return WithAuxiliaryHead(channels, num_classes, config.decoder_channels)

    row = DecoderRow(build=build, description="for tests")  # type: ignore[arg-type]
    monkeypatch.setitem(DECODERS, "auxiliary", row)


def cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean over all pixels, by torch alone."""
    upsampled = F.interpolate(logits.float(), size=masks.shape[1:], mode="bilinear", align_corners=False)
    return F.cross_entropy(upsampled, masks.long(), ignore_index=255, reduction="sum") / masks.numel()


@pytest.mark.usefixtures("auxiliary_decoder")
def test_a_decoder_with_an_auxiliary_head_is_trained_by_both_losses(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_for(small_data, steps=3, eval_every=3, model={"decoder": "auxiliary", "drop_path": 0.0})
    step = loop.optimizer_step
    by_hand: list[float] = []
    heads: list[Tensor] = []

    def watched(
        fabric: object, module: nn.Module, optimizer: object, batch: tuple[Tensor, Tensor], task: object
    ) -> Tensor:
        images, masks = batch
        with torch.no_grad():
            main, auxiliary = module(images)
        by_hand.append(float(cross_entropy(main, masks) + WEIGHT * cross_entropy(auxiliary, masks)))
        heads.append(module.model.decoder.auxiliary.weight.detach().clone())  # type: ignore[union-attr, operator]
        loss: Tensor = step(fabric, module, optimizer, batch, task)  # type: ignore[arg-type]
        return loss

    monkeypatch.setattr(loop, "optimizer_step", watched)
    train(recipe, tmp_path / "run", reporter=QUIET)
    assert [line["loss"] for line in read_metrics(tmp_path / "run") if "loss" in line] == pytest.approx(
        by_hand, rel=1e-5
    )
    assert not torch.equal(heads[0], heads[-1])  # it learns


def loss_of(recipe: Recipe, outputs: Sequence[Tensor], masks: Tensor, *auxiliary: float, share: float = 1.0) -> float:
    loss = SegmentationLoss(recipe, None, auxiliary)
    return float(loss(outputs, masks, count=loss.count(masks), share=share))


def test_the_sum_is_that_of_the_weighted_losses() -> None:
    torch.manual_seed(0)
    masks = torch.randint(0, 3, (2, 16, 16), dtype=torch.uint8)
    main, first, second = (torch.randn(2, 3, side, side) for side in (4, 4, 2))
    recipe = recipe_for(Path(), dice=0.5)
    alone = [loss_of(recipe, (logits,), masks) for logits in (main, first, second)]
    together = loss_of(recipe, (main, first, second), masks, 0.4, 0.2)
    assert together == pytest.approx(alone[0] + 0.4 * alone[1] + 0.2 * alone[2])
    with pytest.raises(ValueError, match="zip"):
        loss_of(recipe, (main, first), masks)  # an output without a weight


def test_a_mean_is_weighted_by_its_share_and_a_sum_divided_by_the_count() -> None:
    torch.manual_seed(0)
    masks = torch.randint(0, 3, (2, 16, 16), dtype=torch.uint8)
    logits = torch.randn(2, 3, 4, 4)
    ohem = recipe_for(Path(), loss="ohem")
    assert loss_of(ohem, (logits,), masks, share=0.25) == pytest.approx(0.25 * loss_of(ohem, (logits,), masks))
    plain = recipe_for(Path())
    assert loss_of(plain, (logits,), masks, share=0.25) == pytest.approx(float(cross_entropy(logits, masks)))


def test_a_loss_is_a_row_and_its_options_are_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    def constant(logits: Tensor, target: Tensor, *, value: float, **_: object) -> Tensor:
        return logits.sum() * 0 + value

    row = LossRow(function=constant, reduction="mean", options={"value": 3.0}, description="for tests")
    monkeypatch.setitem(LOSSES, "constant", row)
    masks = torch.zeros(1, 8, 8, dtype=torch.uint8)
    recipe = recipe_for(Path(), loss="constant")
    assert loss_of(recipe, (torch.zeros(1, 3, 2, 2),), masks, share=0.5) == 1.5
    chosen = replace(recipe, train=replace(recipe.train, loss_options=(("value", 5.0),)))
    assert loss_of(chosen, (torch.zeros(1, 3, 2, 2),), masks) == 5.0


def test_the_training_model_gives_what_the_model_gives() -> None:
    model = build_model("mit_b0", num_classes=3, decoder_channels=32).eval()
    images = torch.randn(1, 3, 64, 64)
    (logits,) = TrainingModel(model)(images)
    assert torch.equal(logits, model(images))

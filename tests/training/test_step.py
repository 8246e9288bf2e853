from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric

from segformer.data.sources.catalog import open_data
from segformer.errors import UserError
from segformer.models.build import build_model
from segformer.training.segmentation import SegmentationTask
from segformer.training.step import check_finite, optimizer_step
from small_runs import recipe_for

CPU = Fabric(accelerator="cpu", devices=1)


def test_gradients_are_accumulated_to_the_effective_batch(small_data: Path) -> None:
    torch.manual_seed(0)
    images = torch.randn(8, 3, 40, 48)
    masks = torch.randint(0, 3, (8, 40, 48), dtype=torch.uint8)
    masks[:3] = 255  # so that micro-batches have different numbers of valid pixels
    source = open_data(str(small_data))
    results = []
    for size in (None, 2, 3):
        # The norm is frozen: its statistics are those of a micro-batch otherwise.
        recipe = recipe_for(small_data, batch_size=8, micro_batch_size=size, loss_average="valid", frozen_norm=True)
        task = SegmentationTask(recipe, source)
        torch.manual_seed(0)
        model = build_model("mit_b0", num_classes=3, decoder_channels=32, drop_path=0.0, dropout=0.0)
        module, optimizer = CPU.setup(task.prepare(model, CPU), task.build_optimizer(model))
        loss = optimizer_step(CPU, module, optimizer, (images, masks), task)
        results.append((loss.item(), model.decoder.classifier.weight.detach().clone()))
    for loss_value, weight in results[1:]:
        assert loss_value == pytest.approx(results[0][0], rel=1e-5)
        torch.testing.assert_close(weight, results[0][1], rtol=1e-3, atol=1e-5)


def test_a_finite_loss_is_returned_and_another_is_refused(tmp_path: Path) -> None:
    assert check_finite(0.5, 3, tmp_path / "last", "lower the rate") == 0.5
    with pytest.raises(UserError, match=r"the loss became nan at step 3; lower the rate$"):
        check_finite(float("nan"), 3, tmp_path / "last", "lower the rate")
    (tmp_path / "last").mkdir()
    with pytest.raises(UserError, match=r"became inf .*the last saved state is in .*last"):
        check_finite(float("inf"), 3, tmp_path / "last", "lower the rate")

from dataclasses import replace
from pathlib import Path

import torch

from segformer.data.sources.catalog import open_data
from segformer.models.build import build_model, model_config
from segformer.recipes import FOLDER_B0
from segformer.training.cost import BYTES_PER_PARAMETER, kept_bytes, step_cost


def test_a_step_is_measured(small_data: Path) -> None:
    data = replace(FOLDER_B0.data, root=str(small_data), resize=(64, 48), crop=(48, 64))
    recipe = replace(FOLDER_B0, data=data, train=replace(FOLDER_B0.train, class_weights=(1.0, 2.0, 3.0)))
    cost = step_cost(recipe, open_data(data))
    assert cost.device == "cpu"
    assert 0.001 < cost.seconds < 30
    assert cost.loader_rate > 1
    model = build_model("mit_b0", num_classes=3)
    weights = BYTES_PER_PARAMETER * sum(p.numel() for p in model.parameters())
    assert weights < cost.bytes < 3 * weights


def test_memory_grows_with_the_batch_and_not_with_the_weights() -> None:
    model = build_model(model_config("mit_b0"), num_classes=3).train()
    one, two = (kept_bytes(model, torch.randn(count, 3, 64, 64)) for count in (1, 2))
    assert 1.7 < two / one < 2.1
    layer = torch.nn.Sequential(torch.nn.Linear(10, 20), torch.nn.GELU())
    # the input (4 x 10) for the weight's gradient, the sum (4 x 20) for that of GELU
    assert kept_bytes(layer, torch.randn(4, 10)) == 4 * (4 * 10 + 4 * 20)  # type: ignore[arg-type]

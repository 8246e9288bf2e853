from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from segformer.data.sources.catalog import open_data
from segformer.models.build import build_model, model_config
from segformer.recipes import FOLDER_B0
from segformer.training.cost import BYTES_PER_PARAMETER, kept_bytes, step_cost
from segformer.training.preparation import check_data, training_decoding, training_set


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


def test_the_cheap_look_comes_before_the_training(small_data: Path) -> None:
    recipe = replace(FOLDER_B0, data=replace(FOLDER_B0.data, root=str(small_data)))
    check_data(recipe, open_data(recipe.data))
    for name in ("003", "005"):
        Image.new("L", (10, 20)).save(small_data / "masks" / "train" / f"{name}.png")
    (small_data / "images" / "val" / "002.png").write_bytes(b"not an image")
    source = open_data(recipe.data)
    with pytest.raises(ValueError, match=r"002\.png: 1 image cannot be decoded.*; and 1 more faults; see segformer"):
        check_data(recipe, source)
    (small_data / "images" / "val" / "002.png").unlink()
    (small_data / "masks" / "val" / "002.png").unlink()
    with pytest.raises(ValueError, match=r"003\.png: 2 masks of another size than the image: expected 48 x 64"):
        check_data(recipe, open_data(recipe.data))


def test_training_images_are_decoded_as_the_recipe_says(small_data: Path, tmp_path: Path) -> None:
    data = replace(FOLDER_B0.data, root=str(small_data))
    assert training_decoding(replace(FOLDER_B0, data=data)).enough is None
    reduced = replace(FOLDER_B0, data=replace(data, reduced_decode=True, resize=(100, 50), ratio=(0.5, 1.5)))
    assert training_decoding(reduced).enough == (150, 75)
    kept = replace(FOLDER_B0, data=replace(data, cache=str(tmp_path / "cache")))
    plain, cached = (training_set(replace(FOLDER_B0, data=d), open_data(d)) for d in (data, kept.data))
    for _ in range(2):
        assert all(torch.equal(a, b) for a, b in zip(plain[3, 4], cached[3, 4], strict=True))
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 2

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import segformer
from networks import FakeNetwork
from segformer.arrays import to_tensor
from segformer.config import EvalConfig, ModelCard, Preprocessing
from segformer.errors import UserError
from segformer.inference.predictor import Predictor
from segformer.inference.windows import predict_mask, predict_scores, predict_with_scores
from segformer.models.build import build_from_card, model_config
from segformer.models.segmenter import Segmenter

SIZE = (50, 71)


def mit(num_classes: int = 4) -> Segmenter:
    torch.manual_seed(0)
    card = ModelCard.for_classes(model_config("mit_b0"), num_classes, Preprocessing(long_side=128, short_side=64))
    return build_from_card(card)


@pytest.fixture
def model() -> Segmenter:
    return mit()


@pytest.fixture
def pixels() -> np.ndarray:
    """(50, 71, 3) uint8, blobs of color."""
    coarse = torch.rand(1, 3, 5, 6, generator=torch.Generator().manual_seed(1)) * 255
    smooth = F.interpolate(coarse, SIZE, mode="bicubic").clamp(0, 255)
    return smooth[0].permute(1, 2, 0).to(torch.uint8).contiguous().numpy()


def test_a_path_an_image_and_an_array_give_the_same(model: Segmenter, pixels: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png")
    predictor = Predictor(model)
    results = [
        predictor(image) for image in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels), pixels)
    ]
    expected = predict_mask(model.eval(), torch.from_numpy(pixels).permute(2, 0, 1), EvalConfig()).numpy()
    assert len(np.unique(expected)) > 1
    for result in results:
        assert result.mask.shape == SIZE
        assert result.mask.dtype == np.uint8
        assert (result.mask == expected).mean() > 0.999  # the fused decoder rounds differently
        np.testing.assert_array_equal(result.mask, results[0].mask)
        np.testing.assert_array_equal(result.image, pixels)
        assert (result.classes, result.palette) == (model.card.classes, model.card.palette)
        assert result.scores is None


@pytest.mark.parametrize("kind", ["segmenter", "fused", "fake"])
@pytest.mark.parametrize(
    "config", [EvalConfig(), EvalConfig(crop=(32, 32), windows=2), EvalConfig(scales=(0.75, 1.0), flip=True)]
)
def test_any_network_by_every_protocol(model: Segmenter, pixels: np.ndarray, kind: str, config: EvalConfig) -> None:
    torch.nn.init.normal_(model.decoder.classifier.weight, std=1.0)
    fused = model.fuse()
    fake = FakeNetwork(4, model.card.preprocessing)
    network = {"segmenter": model, "fused": fused, "fake": fake}[kind]
    used = fake if kind == "fake" else fused
    predictor = Predictor(network, config=config)
    image = to_tensor(pixels)
    expected = predict_mask(used, image, config)
    assert len(expected.unique()) > 1
    assert torch.equal(predictor.mask(image), expected)
    np.testing.assert_array_equal(predictor(pixels).mask, expected.numpy())
    points = torch.tensor([0, 70, 71, 50 * 71 - 1])
    for ours, theirs in zip(
        predictor.mask_with_scores(image, points), predict_with_scores(used, image, config, points), strict=True
    ):
        assert torch.equal(ours, theirs)
    scored = Predictor(network, config=config, scores=True)(pixels)
    np.testing.assert_array_equal(scored.scores, predict_scores(used, image, config).numpy())


def test_gray_rgba_and_16_bits(model: Segmenter, pixels: np.ndarray) -> None:
    predictor = Predictor(model)
    gray = pixels[:, :, 1]
    as_rgb = predictor(np.repeat(gray[:, :, None], 3, axis=2)).mask
    np.testing.assert_array_equal(predictor(gray).mask, as_rgb)
    np.testing.assert_array_equal(predictor(gray[:, :, None]).mask, as_rgb)
    np.testing.assert_array_equal(predictor(gray.astype(np.uint16) * 257).mask, as_rgb)
    np.testing.assert_array_equal(predictor(pixels.astype(np.uint16) * 257).mask, predictor(pixels).mask)
    opaque = np.dstack([pixels, np.full(SIZE, 255, dtype=np.uint8)])
    np.testing.assert_array_equal(predictor(opaque).mask, predictor(pixels).mask)
    clear = np.dstack([pixels, np.zeros(SIZE, dtype=np.uint8)])
    assert (predictor(clear).image == 255).all()  # what shows through is white


def test_an_array_may_be_a_view(model: Segmenter, pixels: np.ndarray) -> None:
    predictor = Predictor(model)
    mirrored = pixels[:, ::-1]
    np.testing.assert_array_equal(predictor(mirrored).mask, predictor(mirrored.copy()).mask)
    pixels.flags.writeable = False
    assert predictor(pixels).mask.shape == SIZE


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((40, 40, 3)), "must be uint8 or uint16, got float64"),
        (np.zeros((3, 40, 40), np.uint8), r"must be \(height, width\) or .*, got \(3, 40, 40\)"),
        (np.zeros((1, 40, 40, 3), np.uint8), r"got \(1, 40, 40, 3\)"),
        (np.zeros((0, 40, 3), np.uint8), r"got \(0, 40, 3\)"),
    ],
)
def test_arrays_that_are_no_image(model: Segmenter, array: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Predictor(model)(array)


def test_files_that_are_no_image(model: Segmenter, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("text")
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "a.png"))):
        Predictor(model)(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"b\.png"):
        Predictor(model)(tmp_path / "b.png")


@pytest.mark.parametrize("training", [True, False])
def test_the_model_stays_as_it_was(model: Segmenter, pixels: np.ndarray, training: bool) -> None:
    model.train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    Predictor(model, scores=True)(pixels)
    assert {module.training for module in model.modules()} == {training}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_a_prediction_is_the_same_while_the_model_trains(pixels: np.ndarray) -> None:
    model = mit()
    model.eval()
    predictor = Predictor(model)
    expected = predictor(pixels).mask
    model.train()
    torch.manual_seed(3)
    for _ in range(5):
        np.testing.assert_array_equal(predictor(pixels).mask, expected)  # no stochastic depth


def test_scores_at_the_images_size(model: Segmenter, pixels: np.ndarray) -> None:
    result = Predictor(model, scores=True)(pixels)
    assert result.scores is not None
    assert result.scores.shape == (4, *SIZE)
    assert result.scores.dtype == np.float32
    np.testing.assert_allclose(result.scores.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_array_equal(result.scores.argmax(axis=0), result.mask)
    assert (Predictor(model)(pixels).mask == result.mask).mean() > 0.999


def test_the_cards_protocol_unless_another_is_given(model: Segmenter, pixels: np.ndarray) -> None:
    sliding = EvalConfig(crop=(32, 32), stride=(32, 32))
    whole = Predictor(model)(pixels).mask
    given = Predictor(model, config=sliding)(pixels).mask
    model.card = replace(model.card, eval=sliding)
    np.testing.assert_array_equal(Predictor(model)(pixels).mask, given)
    assert (given != whole).any()


def test_more_than_256_classes_take_16_bits(pixels: np.ndarray) -> None:
    assert Predictor(mit(256))(pixels).mask.dtype == np.uint8
    model = mit(257)
    with torch.no_grad():
        model.decoder.classifier.bias[256] = 1e3  # type: ignore[index, union-attr]
    result = Predictor(model)(pixels)
    assert result.mask.dtype == np.uint16
    assert (result.mask == 256).all()


def test_a_folder(model: Segmenter, pixels: np.ndarray, tmp_path: Path) -> None:
    for name in ("b.png", "below/a.png", ".hidden/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels[: 40 + len(name)]).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    predictor = Predictor(model)
    results = dict(predictor.folder(tmp_path))
    assert sorted(results) == [Path("b.png"), Path("below/a.png")]
    for relative, result in results.items():
        np.testing.assert_array_equal(result.mask, predictor(tmp_path / relative).mask)


def test_a_folder_without_images(model: Segmenter, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no images in this folder"):
        list(Predictor(model).folder(tmp_path))
    with pytest.raises(UserError, match="nowhere"):
        list(Predictor(model).folder(tmp_path / "nowhere"))


def test_a_predictor_from_a_folder(tmp_path: Path) -> None:
    segformer.save(segformer.build_model("mit_b0", num_classes=3), tmp_path / "model")
    result = Predictor(tmp_path / "model")(np.zeros((40, 50, 3), dtype=np.uint8))
    assert repr(result).startswith("Segmentation(40 x 50, class_")


def test_reduced_precision_gives_nearly_the_same_mask(model: Segmenter, pixels: np.ndarray) -> None:
    torch.nn.init.normal_(model.decoder.classifier.weight, std=1.0)
    expected = Predictor(model)(pixels).mask
    predictor = Predictor(model, precision="bf16")
    assert (predictor(pixels).mask == expected).mean() > 0.97
    logits = predictor.model(torch.zeros(1, 3, 64, 64))
    assert logits.dtype == torch.bfloat16
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())  # the model is left as it is
    assert predictor.model.mean.dtype == torch.float32
    with pytest.raises(ValueError, match="precision must be one of fp32, bf16, fp16"):
        Predictor(model, precision="int8")  # type: ignore[arg-type]


def test_the_first_sizes_are_compiled_and_later_ones_are_not(model: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Size] = []

    def compile(function: Callable[..., Tensor], *, dynamic: bool, mode: str) -> Callable[..., Tensor]:
        assert (dynamic, mode) == (False, "default")

        def compiled(images: Tensor) -> Tensor:
            seen.append(images.shape)
            return function(images)

        return compiled

    monkeypatch.setattr(torch, "compile", compile)
    fused, plain = model.eval().fuse(compile=True), model.fuse()
    with torch.inference_mode():
        for width in (*range(32, 32 + 12), 32, 43):
            images = torch.randn(1, 3, 32, width)
            torch.testing.assert_close(fused(images), plain(images))
    assert [shape[3] for shape in seen] == [*range(32, 32 + 8), 32]


def test_warming_up_meets_the_sizes_that_images_are_resized_to(
    model: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, seen = Predictor(model), []
    forward = predictor.model.forward
    monkeypatch.setattr(predictor.model, "forward", lambda images: (seen.append(images.shape), forward(images))[1])
    predictor.warm_up((48, 64), (64, 48))
    assert set(seen) == {(1, 3, 64, 96), (1, 3, 96, 64)}
    with pytest.raises(ValueError, match=r"a size must be a positive \(height, width\), got \(0, 5\)"):
        predictor.warm_up((0, 5))


@pytest.mark.slow
def test_a_compiled_model_gives_the_same_mask(model: Segmenter, pixels: np.ndarray) -> None:
    torch.nn.init.normal_(model.decoder.classifier.weight, std=1.0)
    expected = Predictor(model)(pixels).mask
    assert (Predictor(model, compile=True)(pixels).mask == expected).mean() > 0.999

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from networks import FakeNetwork
from segformer.config import EvalConfig, ModelCard, Preprocessing, default_palette
from segformer.data.dataset import DataSource
from segformer.data.sources.folder import open_source
from segformer.errors import UserError
from segformer.evaluation import tally as tally_module
from segformer.evaluation.evaluate import evaluate, score, with_protocol
from segformer.evaluation.tally import Tally
from segformer.inference.predictor import Predictor
from segformer.inference.windows import predict_mask, predict_scores
from segformer.models.build import build_from_card, model_config
from segformer.models.segmenter import Segmenter

CLASSES = ("road", "tree", "sky")
SIZE = (48, 64)
NUM_IMAGES = 3


def write_data(root: Path) -> Path:
    """Three images and masks of 48 x 64, some pixels ignored; class 'sky' in the last one only."""
    generator = np.random.default_rng(0)
    for folder in ("images/val", "masks/val"):
        (root / folder).mkdir(parents=True)
    for index in range(NUM_IMAGES):
        coarse = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC).save(root / f"images/val/{index}.png")
        labels = generator.integers(0, 3 if index == NUM_IMAGES - 1 else 2, (6, 8), dtype=np.uint8)
        mask = labels.repeat(8, axis=0).repeat(8, axis=1)
        mask[:3] = 255
        Image.fromarray(mask).save(root / f"masks/val/{index}.png")
    (root / "dataset.json").write_text(json.dumps({"classes": CLASSES}))
    return root


@pytest.fixture
def source(tmp_path: Path) -> DataSource:
    return open_source(str(write_data(tmp_path / "data")))


@pytest.fixture
def model() -> Segmenter:
    """An untrained model that sees images of 64 x 96."""
    torch.manual_seed(0)
    card = ModelCard.for_classes(model_config("mit_b0"), 3, Preprocessing(long_side=128, short_side=64))
    return build_from_card(replace(card, classes=CLASSES)).eval()


def confusion_by_hand(predictor: Predictor, root: Path, indices: range) -> np.ndarray:
    confusion = np.zeros((3, 3), dtype=int)
    for index in indices:
        mask = predictor(root / f"images/val/{index}.png").mask
        label = np.asarray(Image.open(root / f"masks/val/{index}.png"))
        assert mask.shape == label.shape == SIZE
        for k in range(3):
            for j in range(3):
                confusion[k, j] += ((label == k) & (mask == j)).sum()
    return confusion


@pytest.mark.parametrize("config", [None, EvalConfig(crop=(64, 64)), EvalConfig(scales=(0.5, 1.0), flip=True)])
def test_scores_are_those_of_masks_at_the_labels_size(
    model: Segmenter, source: DataSource, config: EvalConfig | None
) -> None:
    scores = score(model, source, config=config, workers=0)
    expected = confusion_by_hand(Predictor(model, config=config), Path(source.name), range(NUM_IMAGES))
    assert (expected.sum(axis=0) > 0).sum() > 1  # a model that says one class only would prove little
    np.testing.assert_array_equal(scores.confusion, expected)
    assert scores.classes == CLASSES
    assert scores.confusion.sum() == NUM_IMAGES * 45 * 64  # three rows of each are ignored


def test_the_models_own_protocol_is_the_default(model: Segmenter, source: DataSource) -> None:
    config = EvalConfig(crop=(32, 32), stride=(32, 32))
    model.card = replace(model.card, eval=config)
    own = score(model, source, workers=0).confusion
    np.testing.assert_array_equal(own, score(model, source, config=config, workers=0).confusion)
    assert (own != score(model, source, config=EvalConfig(), workers=0).confusion).any()


def test_workers_make_no_difference(model: Segmenter, source: DataSource) -> None:
    confusion = score(model, source, workers=2).confusion
    np.testing.assert_array_equal(confusion, score(model, source, workers=0).confusion)


def test_limit_takes_the_first_images_and_progress_counts_them(model: Segmenter, source: DataSource) -> None:
    calls: list[tuple[int, int]] = []
    scores = score(model, source, limit=2, workers=0, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]
    expected = confusion_by_hand(Predictor(model), Path(source.name), range(2))
    np.testing.assert_array_equal(scores.confusion, expected)
    calls.clear()
    score(model, source, limit=100, workers=0, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_1_is_an_error_that_says_so(model: Segmenter, source: DataSource, limit: int) -> None:
    with pytest.raises(ValueError, match=r"\blimit\b"):
        score(model, source, limit=limit, workers=0)


def test_another_number_of_classes(model: Segmenter, source: DataSource) -> None:
    more = replace(source, classes=("a", "b", "c", "d"), palette=default_palette(4))
    with pytest.raises(ValueError, match=r"model has 3 classes \(road, tree, sky\).*has 4 \(a, b, c, d\)"):
        score(model, more, workers=0)


def test_other_class_names(model: Segmenter, source: DataSource) -> None:
    with pytest.raises(ValueError, match=r"'tree' in the model, 'sky' in the data; .*road, tree, sky"):
        score(model, replace(source, classes=("road", "sky", "tree")), workers=0)


def test_an_unknown_and_an_empty_split(model: Segmenter, source: DataSource) -> None:
    with pytest.raises(ValueError, match="has no split 'test'; it has val"):
        score(model, source, "test", workers=0)
    with pytest.raises(ValueError, match="no images in the split 'test'"):
        score(model, replace(source, splits={**source.splits, "test": []}), "test", workers=0)


def modes(model: Segmenter) -> list[bool]:
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("training", [True, False])
def test_training_mode_is_restored(model: Segmenter, source: DataSource, training: bool) -> None:
    model.train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    score(model, source, limit=1, workers=0)
    assert set(modes(model)) == {training}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_model_in_training_mode_is_scored_in_evaluation_mode(model: Segmenter, source: DataSource) -> None:
    expected = score(model, source, workers=0).confusion
    np.testing.assert_array_equal(score(model.train(), source, workers=0).confusion, expected)


def test_training_mode_is_restored_after_an_error(model: Segmenter, source: DataSource) -> None:
    bad = Path(source.name) / "masks/val/1.png"
    Image.fromarray(np.full(SIZE, 7, dtype=np.uint8)).save(bad)
    model.train()
    with pytest.raises(ValueError, match=r"masks/val/1\.png: expected labels 0-2 or 255 \(ignored\), got 7"):
        score(model, source, workers=0)
    assert set(modes(model)) == {True}


NETWORKS = {
    "segmenter": lambda model: model,
    "fused": lambda model: model.fuse(),
    "fake": lambda model: FakeNetwork(model.card.classes, model.card.preprocessing),
}
PROTOCOLS = {
    "whole": EvalConfig(),
    "slide": EvalConfig(crop=(64, 64), stride=(32, 32)),
    "multiscale": EvalConfig(scales=(0.75, 1.0), flip=True),
}


def iou_by_hand(mask: np.ndarray, label: np.ndarray) -> list[float]:
    """IoU of each class that occurs."""
    pairs = [((mask == k)[label != 255], (label == k)[label != 255]) for k in range(3)]
    return [(a & b).sum() / (a | b).sum() for a, b in pairs if (a | b).any()]


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_figure_comes_from_masks_and_probabilities(
    model: Segmenter, source: DataSource, kind: str, protocol: str
) -> None:
    network = NETWORKS[kind](model)
    config = PROTOCOLS[protocol]
    evaluation = evaluate(network, source, config=config, workers=0)
    expected = score(network, source, config=config, workers=0)
    np.testing.assert_array_equal(evaluation.scores.confusion, expected.confusion)
    assert evaluation.miou == expected.miou
    assert list(evaluation.names) == ["0", "1", "2"]
    likelihoods = []
    for k, sample in enumerate(source.samples("val")):
        pixels, label = sample.read()
        image = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
        mask = predict_mask(network, image, config).numpy()
        assert evaluation.image_miou[k] == pytest.approx(np.mean(iou_by_hand(mask, label)))
        probabilities = predict_scores(network, image, config).numpy()
        own = np.take_along_axis(probabilities, np.where(label == 255, 0, label)[None].astype(int), 0)[0]
        likelihoods.append(np.log(own[label != 255]).mean())
    nll = evaluation.tally.nll[:, 20].sum() / evaluation.tally.bins[:, 20, :, 0].sum()
    assert nll == pytest.approx(-np.mean(likelihoods), rel=0.05)  # on a sample of a few thousand pixels


def test_an_interrupted_evaluation_is_resumed(model: Segmenter, source: DataSource, tmp_path: Path) -> None:
    expected = evaluate(model, source, workers=0)
    seen: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(model, source, workers=0, keep=tmp_path / "counts", progress=stop)
    found = evaluate(model, source, workers=0, keep=tmp_path / "counts", progress=lambda *at: seen.append(at))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    for name, array in expected.tally.to_arrays().items():
        np.testing.assert_array_equal(found.tally.to_arrays()[name], array)
    seen.clear()
    evaluate(model, source, workers=0, keep=tmp_path / "counts", progress=lambda *at: seen.append(at))
    assert seen == []


@pytest.mark.parametrize("place", ["count_borders", "count_pixels"])
def test_an_interruption_while_an_image_is_counted_counts_it_once(
    model: Segmenter, source: DataSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    expected = evaluate(model, source, workers=0)
    count = getattr(tally_module, place)
    calls = 0

    def interrupted(*arguments: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return count(*arguments)

    monkeypatch.setattr(tally_module, place, interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, source, workers=0, keep=tmp_path / "counts")
    found = evaluate(model, source, workers=0, keep=tmp_path / "counts")
    for name, array in expected.tally.to_arrays().items():
        np.testing.assert_array_equal(found.tally.to_arrays()[name], array)


def test_counts_of_something_else(model: Segmenter, source: DataSource, tmp_path: Path) -> None:
    keep = tmp_path / "counts"

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(model, source, workers=0, keep=keep, progress=stop)
    other = FakeNetwork(CLASSES, model.card.preprocessing)
    other.card = model.card
    with pytest.raises(UserError, match=r"counts holds another evaluation: weights is .* there and fake here; give"):
        evaluate(other, source, workers=0, keep=keep)
    with pytest.raises(UserError, match=r"protocol\.crop is null there and \[64, 64\] here"):
        evaluate(model, source, config=PROTOCOLS["slide"], limit=1, workers=0, keep=keep)
    evaluate(model, source, workers=0, keep=keep)  # finished now, so it may be replaced
    assert evaluate(other, source, workers=0, keep=keep).tally.done.all()


def test_damaged_counts_are_named(model: Segmenter, source: DataSource, tmp_path: Path) -> None:
    keep = tmp_path / "counts"
    evaluate(model, source, workers=0, keep=keep)
    (keep / "counts.npz").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"counts\.npz: damaged"):
        evaluate(model, source, workers=0, keep=keep)
    np.savez(keep / "counts.npz", **Tally.empty(7, 3).to_arrays())
    with pytest.raises(UserError, match=r"counts\.npz: damaged"):
        evaluate(model, source, workers=0, keep=keep)


def test_protocols() -> None:
    own = EvalConfig(crop=(96, 128), stride=(64, 64), scales=(0.75, 1.0), flip=True)
    assert with_protocol(own, "whole", 512) == EvalConfig()
    assert with_protocol(own, "slide", 512) == EvalConfig(crop=(96, 128), stride=(64, 64))
    assert with_protocol(own, "multiscale", 512) == own
    assert with_protocol(EvalConfig(), "slide", 512) == EvalConfig(crop=(512, 512))
    expected = EvalConfig(scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75), flip=True)
    assert with_protocol(EvalConfig(), "multiscale", 512) == expected


def test_an_unknown_protocol() -> None:
    with pytest.raises(ValueError, match="did you mean 'slide'"):
        with_protocol(EvalConfig(), "slides", 512)

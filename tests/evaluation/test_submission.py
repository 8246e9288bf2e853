from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from networks import FakeNetwork
from segformer.config import Preprocessing, default_palette
from segformer.data.label_table import LabelTable
from segformer.data.sources import SOURCES, ade20k, cityscapes
from segformer.errors import UserError
from segformer.evaluation.submission import SERVERS, write_submission
from segformer.inference.predictor import Predictor
from segformer.models.build import build_model
from segformer.models.segmenter import Segmenter


def model_of(classes: tuple[str, ...]) -> Segmenter:
    torch.manual_seed(0)
    small = Preprocessing(long_side=128, short_side=64)
    model = build_model("mit_b0", num_classes=len(classes), decoder_channels=32, preprocessing=small).eval()
    torch.nn.init.normal_(model.decoder.classifier.weight, std=1.0)
    model.card = replace(model.card, classes=classes, palette=default_palette(len(classes)))
    return model


def write_images(root: Path, *names: str) -> Path:
    for k, name in enumerate(names):
        coarse = np.random.default_rng(k).integers(0, 256, (5, 8, 3), dtype=np.uint8)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((80, 50), Image.Resampling.BICUBIC).save(root / name)
    return root


def test_cityscapes_gets_label_ids(tmp_path: Path) -> None:
    names = ("berlin/berlin_000000_000019_leftImg8bit.png", "bonn/bonn_000001_000019_leftImg8bit.png")
    model, images = model_of(cityscapes.CLASSES), write_images(tmp_path / "test", *names)
    write_images(images, "berlin/berlin_000000_000019_gtFine_color.png")
    assert write_submission(model, images, "cityscapes", tmp_path / "out") == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(Path(name).name for name in names)
    table = cityscapes.TABLES["labelIds"]
    for name in names:
        written = Image.open(tmp_path / "out" / Path(name).name)
        assert (written.mode, written.size) == ("L", (80, 50))
        mask = Predictor(model)(images / name).mask
        np.testing.assert_array_equal(table.apply(np.asarray(written), name), mask)
        assert len(np.unique(mask)) > 1


def test_ade20k_gets_index_plus_1(tmp_path: Path) -> None:
    model, images = model_of(ade20k.CLASSES), write_images(tmp_path / "testing", "ADE_test_00000001.jpg")
    seen: list[tuple[int, int]] = []
    write_submission(model, images, "ade20k", tmp_path / "out", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 1)]
    written = np.asarray(Image.open(tmp_path / "out/ADE_test_00000001.png"))
    np.testing.assert_array_equal(written, Predictor(model)(images / "ADE_test_00000001.jpg").mask + 1)
    assert isinstance(ade20k.TABLE, LabelTable)
    np.testing.assert_array_equal(ade20k.TABLE.apply(written, "mask"), written - 1)


@pytest.mark.parametrize("kind", ["fused", "fake"])
def test_any_network(tmp_path: Path, kind: str) -> None:
    model, images = model_of(ade20k.CLASSES), write_images(tmp_path / "testing", "a.jpg")
    network = model.fuse() if kind == "fused" else FakeNetwork(ade20k.CLASSES)
    write_submission(network, images, "ade20k", tmp_path / "out")
    written = np.asarray(Image.open(tmp_path / "out/a.png"))
    np.testing.assert_array_equal(written, Predictor(network)(images / "a.jpg").mask + 1)


def test_what_is_there_already_is_kept(tmp_path: Path) -> None:
    model, images = model_of(ade20k.CLASSES), write_images(tmp_path / "testing", "a.jpg", "b.jpg")
    write_images(tmp_path / "out", "a.png")
    before = (tmp_path / "out/a.png").read_bytes()
    write_submission(model, images, "ade20k", tmp_path / "out")
    assert (tmp_path / "out/a.png").read_bytes() == before
    assert (tmp_path / "out/b.png").is_file()


def test_bad_input(tmp_path: Path) -> None:
    model, images = model_of(ade20k.CLASSES), write_images(tmp_path / "testing", "x/a.jpg", "y/a.jpg")
    with pytest.raises(ValueError, match=r"two images would have the mask a\.png"):
        write_submission(model, images, "ade20k", tmp_path / "out")
    with pytest.raises(ValueError, match=r"needs a model of its 19 classes .*got 150"):
        write_submission(model, images, "cityscapes", tmp_path / "out")
    with pytest.raises(UserError, match="expected a folder of images"):
        write_submission(model, tmp_path / "nothing", "ade20k", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no images named \*\.jpg"):
        write_submission(model, tmp_path / "empty", "ade20k", tmp_path / "out")
    with pytest.raises(ValueError, match=r"--to must be one of cityscapes, ade20k"):
        write_submission(model, images, "camvid", tmp_path / "out")


@pytest.mark.parametrize("name", SERVERS)
def test_every_server_has_an_id_for_each_class(name: str) -> None:
    classes = SOURCES[name].classes
    assert classes is not None
    assert len(SERVERS[name].ids) == len(set(SERVERS[name].ids)) == len(classes)

"""Images of any number of channels, in their own units, from the file to a trained model."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from conftest import draw_pair
from segformer.checkpoints.model_folder import load
from segformer.cli.main import main
from segformer.config import Preprocessing
from segformer.data.doctor.diagnosis import diagnose
from segformer.data.doctor.sheets import contact_sheet
from segformer.data.images import Decoding, read_image
from segformer.data.raw_images import read_raw
from segformer.errors import UserError
from segformer.inference.predictor import Predictor

Array = NDArray[Any]


FIVE = np.random.default_rng(0).integers(0, 60_000, (40, 50, 5), dtype=np.uint16)


def pages(path: Path, array: Array) -> None:
    with tifffile.TiffWriter(path) as writer:
        for channel in range(array.shape[2]):
            writer.write(array[:, :, channel], contiguous=False)


WAYS: dict[str, Any] = {
    "interleaved": lambda path: tifffile.imwrite(path, FIVE, planarconfig="contig", photometric="minisblack"),
    "planar": lambda path: tifffile.imwrite(path, FIVE.transpose(2, 0, 1), photometric="minisblack"),
    "lzw": lambda path: tifffile.imwrite(
        path, FIVE, compression="lzw", planarconfig="contig", photometric="minisblack"
    ),
    "float": lambda path: tifffile.imwrite(path, FIVE.astype(np.float64), planarconfig="contig"),
    "an array without a word": lambda path: tifffile.imwrite(path, FIVE),
    "pages": lambda path: pages(path, FIVE),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_tiff_of_five_channels(way: str, tmp_path: Path) -> None:
    WAYS[way](tmp_path / "a.tif")
    pixels = read_raw(tmp_path / "a.tif")
    assert pixels.dtype == np.float32
    assert np.array_equal(pixels, FIVE)
    with pytest.raises(ValueError, match=r"a\.tif: expected an image of model\.in_channels = 4 channels, got 5"):
        read_image(tmp_path / "a.tif", Decoding("raw", 4))
    assert read_image(tmp_path / "a.tif", Decoding("raw", None)).shape == (40, 50, 5)


def test_a_png_keeps_its_16_bits(tmp_path: Path) -> None:
    for channels in (1, 3, 4):
        array = FIVE[:, :, :channels]
        flipped = array if channels == 1 else array[:, :, [2, 1, 0, 3][:channels]]
        assert cv2.imwrite(str(tmp_path / "a.png"), flipped)
        assert np.array_equal(read_raw(tmp_path / "a.png"), array)


def test_eight_bits_stay_eight_bits(tmp_path: Path) -> None:
    array = (FIVE[:, :, :4] >> 8).astype(np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png")
    assert read_raw(tmp_path / "a.png").dtype == np.uint8
    assert np.array_equal(read_raw(tmp_path / "a.png"), array)


@pytest.mark.parametrize("content", [b"hello", b"II*\0garbage", None])
@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg"])
def test_damage_is_named(content: bytes | None, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    if content is None:
        if suffix == ".tif":
            tifffile.imwrite(path, FIVE)
        else:
            assert cv2.imwrite(str(path), FIVE[:, :, :3] if suffix == ".png" else FIVE[:, :, 0] >> 8)
        content = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\{suffix}: (damaged image|expected an image)"):
        read_raw(path)


def test_what_is_not_finite_is_named(tmp_path: Path) -> None:
    array = FIVE.astype(np.float32)
    array[3, 4, 2] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", array)
    with pytest.raises(ValueError, match=r"a\.tif: 1 pixels are not finite"):
        read_raw(tmp_path / "a.tif")


def test_read_as_rgb_it_says_what_to_do(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", FIVE, planarconfig="contig", photometric="minisblack")
    with pytest.raises(ValueError, match=r"set preprocessing\.pixels raw"):
        read_image(tmp_path / "a.tif")


@pytest.fixture
def bands(tmp_path: Path) -> Path:
    """Drawn scenes whose classes are told apart by a fourth and a fifth band only."""
    root = tmp_path / "bands"
    for split, count in (("train", 8), ("val", 3)):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for k in range(count):
            _, mask = draw_pair(100 * len(split) + k)
            rng = np.random.default_rng(k)
            image = rng.normal(1000, 200, (*mask.shape, 5))
            image[..., 3] += 2000 * (mask == 1)
            image[..., 4] += 3000 * (mask == 2)
            tifffile.imwrite(root / "images" / split / f"{k}.tif", image.clip(0, 65_535).astype(np.uint16))
            Image.fromarray(mask).save(root / "masks" / split / f"{k}.png")
    (root / "dataset.json").write_text(json.dumps({"classes": ["ground", "disc", "square"]}))
    return root


def test_the_doctor_counts_channels_and_gives_the_options(bands: Path) -> None:
    diagnosis = diagnose(bands)
    assert diagnosis.ready
    assert diagnosis.splits["train"].channels == {"5 x uint16": 8}
    pixels = np.concatenate([tifffile.imread(p).reshape(-1, 5) for p in (bands / "images/train").iterdir()])
    assert diagnosis.mean == pytest.approx(pixels.mean(0))
    assert diagnosis.std == pytest.approx(pixels.std(0))
    option = diagnosis.suggestions[-1]
    assert option.startswith("--model.in-channels 5 --preprocessing.pixels raw --preprocessing.mean ")
    assert diagnose(bands, cheap=True).findings == ()
    assert contact_sheet(str(bands)).shape[2] == 3


def test_unlike_channels_have_no_statistics(bands: Path) -> None:
    tifffile.imwrite(bands / "images/train/0.tif", np.zeros((48, 64, 4), dtype=np.uint16))
    diagnosis = diagnose(bands)
    assert diagnosis.mean == ()
    assert "mixed_channels" in {finding.kind for finding in diagnosis.findings}


def test_the_options_train_a_model_that_sees_every_band(bands: Path, tmp_path: Path) -> None:
    options = diagnose(bands).suggestions[-1].split()
    run = tmp_path / "run"
    small = ["--data.resize", "64", "48", "--data.crop", "48", "64", "--train.steps", "60", "--train.workers", "0"]
    main(["train", "--data", str(bands), "--run-dir", str(run), *options, *small, "--train.eval-every", "60"])
    model = load(run / "best")
    assert (model.card.model.in_channels, model.card.preprocessing.pixels) == (5, "raw")
    path = bands / "images/val/0.tif"
    result = Predictor(model)(path)
    assert result.overlay().shape == (48, 64, 3)
    assert np.array_equal(result.mask, Predictor(model)(tifffile.imread(path)).mask)
    label = np.asarray(Image.open(bands / "masks/val/0.png"))
    assert (result.mask == label)[label != 255].mean() > 0.85  # ground alone is 0.8 at most
    blind = tifffile.imread(path)
    blind[..., 3:] = 1000
    assert set(np.unique(Predictor(model)(blind).mask)) == {0}


def test_a_wrong_image_among_them_is_named(bands: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tifffile.imwrite(bands / "images/train/3.tif", np.zeros((48, 64, 4), dtype=np.uint16))
    options = ["--model.in-channels", "5", "--preprocessing.pixels", "raw"]
    options += [f"--preprocessing.{name}" if k == 0 else "1000" for name in ("mean", "std") for k in range(6)]
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--data", str(bands), "--run-dir", str(tmp_path / "run"), *options, "--train.workers", "0"])
    assert stopped.value.code == 2
    assert "3.tif: expected an image of model.in_channels = 5 channels, got 4" in capsys.readouterr().err


def test_statistics_for_other_counts_mean_raw_pixels() -> None:
    assert Preprocessing.for_channels(4).pixels == "raw"
    assert Preprocessing.for_channels(3).pixels == "rgb"
    assert torch.tensor(Preprocessing.for_channels(4).mean).shape == (4,)


def test_any_damage_is_a_user_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "bands.tif"
    tifffile.imwrite(path, rng.integers(0, 9999, (24, 32, 5)).astype(np.uint16), compression="zlib")
    whole = path.read_bytes()
    failed = 0
    for _ in range(60):
        damaged = bytearray(whole)
        for place in rng.integers(0, 300, 3):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            read_raw(path)
        except UserError:
            failed += 1
    assert failed > 10

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.transform import from_origin

from networks import FakeNetwork
from segformer.config import EvalConfig, Preprocessing
from segformer.data.images import read_image
from segformer.errors import UserError
from segformer.inference import raster
from segformer.inference import windows as inference
from segformer.inference.raster import segment_raster
from segformer.inference.windows import predict_mask
from segformer.models.build import build_model
from segformer.models.interfaces import Network
from segformer.models.segmenter import Segmenter

CONFIG = EvalConfig(crop=(96, 96), blend="gaussian")


@pytest.fixture(scope="module")
def model() -> Segmenter:
    torch.manual_seed(0)
    pixels = Preprocessing(resize="none", multiple=1)
    model = build_model("mit_b0", num_classes=5, decoder_channels=32, preprocessing=pixels).eval()
    torch.nn.init.normal_(model.decoder.classifier.weight, std=1.0)
    return model


@pytest.fixture(autouse=True)
def narrow_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "BAND", 5 * 200 * 7)


def write(path: Path, height: int = 260, width: int = 300, **profile: object) -> Path:
    coarse = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    if path.suffix == ".tif":
        options = {"driver": "GTiff", "dtype": "uint8", "count": 3, "height": height, "width": width} | profile
        with rasterio.open(path, "w", **options) as file:
            file.write(pixels.transpose(2, 0, 1))
    else:
        Image.fromarray(pixels).save(path)
    return path


def expected(model: Network, path: Path, config: EvalConfig = CONFIG) -> np.ndarray:
    return predict_mask(model, torch.from_numpy(read_image(path).transpose(2, 0, 1).copy()), config).numpy()


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(1)


@pytest.mark.parametrize("blend", ["uniform", "gaussian", "cosine"])
@pytest.mark.parametrize(("height", "width"), [(260, 300), (96, 400), (40, 500), (97, 97)])
def test_the_way_over_the_disk_is_the_way_through_memory(
    model: Segmenter, tmp_path: Path, blend: str, height: int, width: int
) -> None:
    config = replace(CONFIG, blend=blend, windows=3)
    path = write(tmp_path / "in.png", height, width)
    segment_raster(model, path, tmp_path / "out.png", config)
    mask = np.asarray(Image.open(tmp_path / "out.png"))
    np.testing.assert_array_equal(mask, expected(model, path, config))
    assert len(np.unique(mask)) > 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.png", "out.png"]


@pytest.mark.parametrize("kind", ["fused", "fake"])
def test_any_network(model: Segmenter, tmp_path: Path, kind: str) -> None:
    network = model.fuse() if kind == "fused" else FakeNetwork(5, model.card.preprocessing)
    path = write(tmp_path / "in.tif")
    segment_raster(network, path, tmp_path / "out.tif", CONFIG)
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), expected(network, path))


def test_2000_by_2000_pixels(model: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "BAND", 1 << 21)
    path, config = write(tmp_path / "in.png", 2000, 2000), replace(CONFIG, crop=(512, 512))
    segment_raster(model, path, tmp_path / "out.png", config)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png")), expected(model, path, config))


def test_a_geotiff_keeps_its_place_and_gets_the_palette(model: Segmenter, tmp_path: Path) -> None:
    place = {"crs": "EPSG:32632", "transform": from_origin(500_000, 5_200_000, 0.5, 0.5)}
    path = write(tmp_path / "in.tif", tiled=True, blockxsize=64, blockysize=64, compress="lzw", **place)
    segment_raster(model, path, tmp_path / "out.tif", CONFIG)
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), expected(model, path))
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.crs.to_epsg() == 32632
        assert file.transform == place["transform"]
        assert (file.profile["tiled"], file.profile["compress"], file.nodata) == (True, "deflate", 255)
        assert file.colormap(1)[3][:3] == model.card.palette[3]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_image_is_resumed(model: Segmenter, tmp_path: Path, kind: type[BaseException]) -> None:
    path, seen = write(tmp_path / "in.tif"), []

    def stop(done: int, total: int) -> None:
        seen.append(done)
        if done > 130:
            raise kind

    with pytest.raises(kind):
        segment_raster(model, path, tmp_path / "out.tif", CONFIG, progress=stop)
    assert not (tmp_path / "out.tif").exists()
    stopped = seen[-1]
    with (tmp_path / "out.tif.part/mask").open("ab") as file:
        file.write(b"half a row")  # of a kill in the middle of a write
    segment_raster(model, path, tmp_path / "out.tif", CONFIG, progress=lambda done, total: seen.append(done))
    assert seen == sorted(set(seen))
    assert stopped < seen[len(seen) - 1] == 260
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), expected(model, path))


@pytest.mark.parametrize("rows", [1, 70, 80, 145, 150, 160, 170, 200, 259, 260])
def test_wherever_it_was_interrupted(model: Segmenter, tmp_path: Path, rows: int) -> None:
    """Also within rows that several rows of windows cover, and after the last."""
    path, config = write(tmp_path / "in.png"), CONFIG

    def stop(done: int, total: int) -> None:
        if done >= rows:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segment_raster(model, path, tmp_path / "out.png", config, progress=stop)
    segment_raster(model, path, tmp_path / "out.png", config)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png")), expected(model, path))


def test_a_mask_of_something_else_is_not_resumed(model: Segmenter, tmp_path: Path) -> None:
    path = write(tmp_path / "in.tif")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segment_raster(model, path, tmp_path / "out.tif", CONFIG, progress=stop)
    with pytest.raises(
        UserError,
        match=r"out\.tif\.part holds another mask: protocol\.crop is \[96, 96\] there and \[64, 64\] here; remove",
    ):
        segment_raster(model, path, tmp_path / "out.tif", replace(CONFIG, crop=(64, 64)))


def test_no_gradients_are_kept(model: Segmenter, tmp_path: Path) -> None:
    assert any(parameter.requires_grad for parameter in model.parameters())
    seen: list[bool] = []
    path = write(tmp_path / "in.png")
    segment_raster(
        model, path, tmp_path / "out.png", CONFIG, progress=lambda *_: seen.append(torch.is_inference_mode_enabled())
    )
    assert seen
    assert all(seen)


def test_rows_are_read_once(model: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, rows = write(tmp_path / "in.png"), []
    original = raster.RowReader._bands

    def recorded(self: raster.RowReader, part: slice) -> np.ndarray:
        rows.append((part.start, part.stop))
        return original(self, part)

    monkeypatch.setattr(raster.RowReader, "_bands", recorded)
    segment_raster(model, path, tmp_path / "out.png", CONFIG)
    assert rows[0] == (0, 96)
    assert [b for _, b in rows[:-1]] == [a for a, _ in rows[1:]]
    assert rows[-1][1] == 260


def test_pixels_without_data_have_no_class(model: Segmenter, tmp_path: Path) -> None:
    path = write(tmp_path / "in.tif", nodata=0)
    with rasterio.open(path, "r+") as file:
        pixels = file.read()
        pixels[:, :, :50] = 0
        pixels[:, :, 50:] = pixels[:, :, 50:].clip(1)
        file.write(pixels)
    segment_raster(model, path, tmp_path / "out.tif", CONFIG)
    mask = read(tmp_path / "out.tif")
    assert (mask[:, :50] == 255).all()
    assert (mask[:, 50:] < 5).all()


@pytest.mark.parametrize("kind", ["gray", "palette", "deep", "alpha"])
def test_other_kinds_are_read_as_everywhere(model: Segmenter, tmp_path: Path, kind: str) -> None:
    path, image = tmp_path / "in.png", Image.open(write(tmp_path / "rgb.png"))
    if kind == "deep":
        Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(path)
    else:
        alpha = Image.fromarray(np.tile(np.linspace(0, 255, 300).astype(np.uint8), (260, 1)))
        image.putalpha(alpha) if kind == "alpha" else None
        image.convert({"gray": "L", "palette": "P", "alpha": "RGBA"}[kind]).save(path)
    segment_raster(model, path, tmp_path / "out.png", CONFIG)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png")), expected(model, path))


def test_bad_input(model: Segmenter, tmp_path: Path) -> None:
    (tmp_path / "text.tif").write_text("no image")
    with pytest.raises(ValueError, match=r"text\.tif: expected an image"):
        segment_raster(model, tmp_path / "text.tif", tmp_path / "out.tif", CONFIG)
    with pytest.raises(UserError, match="missing"):
        segment_raster(model, tmp_path / "missing.tif", tmp_path / "out.tif", CONFIG)
    path = write(tmp_path / "in.tif", compress="deflate")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"in\.tif"):
        segment_raster(model, path, tmp_path / "out.tif", CONFIG)
    assert not (tmp_path / "out.tif").exists()
    for config in (EvalConfig(), replace(CONFIG, flip=True), replace(CONFIG, scales=(0.5, 1.0))):
        with pytest.raises(ValueError, match="--window"):
            segment_raster(model, path, tmp_path / "out.tif", config)

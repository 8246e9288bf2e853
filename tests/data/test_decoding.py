from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from segformer.data.decoding import to_rgb
from segformer.data.images import Decoding, read_image
from segformer.data.masks import read_mask
from segformer.errors import UserError

Array = NDArray[Any]


ORIENTATION = 0x0112  # EXIF tag


# EXIF 2.3, table of tag 274: which visual side the stored 0th row and the stored 0th column are.
STORED: dict[int, Callable[[Array], Array]] = {
    1: lambda upright: upright,  # top, left
    2: lambda upright: upright[:, ::-1],  # top, right
    3: lambda upright: upright[::-1, ::-1],  # bottom, right
    4: lambda upright: upright[::-1],  # bottom, left
    5: lambda upright: upright.swapaxes(0, 1),  # left, top
    6: lambda upright: upright[:, ::-1].swapaxes(0, 1),  # right, top
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),  # right, bottom
    8: lambda upright: upright[::-1].swapaxes(0, 1),  # left, bottom
}


def photo() -> Array:
    """(32, 48, 3) uint8: six squares of different colors, which survive JPEG."""
    colors = np.array([[(200, 40, 40), (40, 200, 40), (40, 40, 200)], [(20, 20, 20), (230, 230, 230), (90, 160, 90)]])
    return colors.repeat(16, axis=0).repeat(16, axis=1).astype(np.uint8)


def noise(height: int = 5, width: int = 7, channels: int = 3) -> Array:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("orientation", STORED)
def test_a_phone_photo_comes_out_upright(orientation: int, tmp_path: Path) -> None:
    stored = np.ascontiguousarray(STORED[orientation](photo()))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(stored).save(tmp_path / "photo.jpg", quality=95, subsampling=0, exif=exif)
    image = read_image(tmp_path / "photo.jpg")
    assert image.shape == (32, 48, 3)
    assert np.abs(image.astype(int) - photo()).max() <= 6


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("loaded", [False, True])
def test_a_callers_picture_stays_as_it_is(orientation: int, loaded: bool, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = np.ascontiguousarray(STORED[orientation](photo()))
    Image.fromarray(stored).save(tmp_path / "photo.png", exif=exif)
    with Image.open(tmp_path / "photo.png") as picture:
        if loaded:
            picture.load()
        for _ in range(2):
            np.testing.assert_array_equal(to_rgb(picture), photo())
        assert picture.getexif()[ORIENTATION] == orientation
        np.testing.assert_array_equal(np.asarray(picture), stored)


@pytest.mark.parametrize("orientation", [0, 9, 1000])
def test_an_unknown_orientation_says_nothing(orientation: int) -> None:
    picture = Image.fromarray(photo())
    picture.getexif()[ORIENTATION] = orientation
    np.testing.assert_array_equal(to_rgb(picture), photo())


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage garbage", b"Exif\0\0II"])
def test_an_unreadable_exif_block_does_not_hide_the_image(exif: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"image{suffix}"
    Image.fromarray(photo()).save(path, exif=exif, quality=95, subsampling=0)
    assert np.abs(read_image(path).astype(int) - photo()).max() <= 6


def test_rgb_is_kept(tmp_path: Path) -> None:
    Image.fromarray(noise()).save(tmp_path / "image.png")
    image = read_image(str(tmp_path / "image.png"))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, noise())


def test_gray_is_repeated(tmp_path: Path) -> None:
    gray = noise()[:, :, 0]
    Image.fromarray(gray).save(tmp_path / "image.png")
    np.testing.assert_array_equal(read_image(tmp_path / "image.png"), np.stack([gray] * 3, axis=2))


def over_white(color: float, alpha: int) -> float:
    return (color * alpha + 255 * (255 - alpha)) / 255


def test_transparent_colors_are_laid_over_white(tmp_path: Path) -> None:
    pixels = noise(channels=4)
    pixels[0, 0], pixels[0, 1], pixels[0, 2] = (9, 8, 7, 0), (9, 8, 7, 255), (255, 0, 100, 128)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    image = read_image(tmp_path / "image.png")
    assert image.dtype == np.uint8
    assert image[0, 0].tolist() == [255, 255, 255]
    assert image[0, 1].tolist() == [9, 8, 7]
    alpha = pixels[:, :, 3:].astype(float)
    assert np.abs(image - over_white(pixels[:, :, :3], alpha)).max() <= 1


def test_transparent_gray_is_laid_over_white(tmp_path: Path) -> None:
    pixels = noise(channels=2)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    image = read_image(tmp_path / "image.png")
    assert image.shape == (5, 7, 3)
    assert np.abs(image - over_white(pixels[:, :, :1], pixels[:, :, 1:].astype(float))).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_transparent_palette_entries_become_white(suffix: str, tmp_path: Path) -> None:
    palette = Image.fromarray(np.array([[0, 1, 2], [2, 1, 0]], np.uint8)).convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    palette.save(tmp_path / f"image{suffix}", transparency=1)
    a, white, c = [10, 20, 30], [255, 255, 255], [70, 80, 90]
    assert read_image(tmp_path / f"image{suffix}").tolist() == [[a, white, c], [c, white, a]]


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_becomes_rgb(suffix: str, tmp_path: Path) -> None:
    inks = {
        (0, 255, 255, 0): (255, 0, 0),
        (255, 0, 0, 0): (0, 255, 255),
        (0, 0, 0, 255): (0, 0, 0),
        (0,) * 4: (255,) * 3,
    }
    for ink, color in inks.items():
        Image.new("CMYK", (8, 8), ink).save(tmp_path / f"image{suffix}")
        image = read_image(tmp_path / f"image{suffix}")
        assert image.shape == (8, 8, 3)
        assert np.abs(image.astype(int) - color).max() <= 3


def test_one_bit_becomes_black_and_white(tmp_path: Path) -> None:
    bits = np.array([[True, False, True], [False, False, True]])
    Image.fromarray(bits).save(tmp_path / "image.png")
    image = read_image(tmp_path / "image.png")
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.where(bits[:, :, None], 255, 0).repeat(3, axis=2))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_to_eight(suffix: str, tmp_path: Path) -> None:
    levels = np.array([[0, 128, 129, 257, 385], [386, 25_700, 32_767, 65_406, 65_535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / f"image{suffix}")
    image = read_image(tmp_path / f"image{suffix}")
    assert image.dtype == np.uint8
    expected = [[0, 0, 1, 1, 1], [2, 100, 127, 254, 255]]  # levels / 257, rounded
    for channel in range(3):
        assert image[:, :, channel].tolist() == expected


def test_big_endian_tiff(tmp_path: Path) -> None:
    levels = np.array([[0, 257, 514], [25_700, 1000, 65_535]], np.uint16)
    Image.frombytes("I;16B", (3, 2), levels.astype(">u2").tobytes()).save(tmp_path / "image.tif")
    assert read_image(tmp_path / "image.tif")[:, :, 0].tolist() == [[0, 1, 2], [100, 4, 255]]
    np.testing.assert_array_equal(read_mask(tmp_path / "image.tif"), levels)


def test_float_tiff_is_read_as_zero_to_one(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32)).save(tmp_path / "image.tif")
    assert read_image(tmp_path / "image.tif")[:, :, 1].tolist() == [[0, 128, 255]]


def truncated(image: Array, path: Path, share: float) -> None:
    Image.fromarray(image).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "text.jpg": lambda path: path.write_text("not an image"),
    "empty.png": lambda path: path.write_bytes(b""),
    "cut.jpg": lambda path: truncated(noise(64, 64), path, 0.6),
    "cut.png": lambda path: truncated(noise(64, 64), path, 0.6),
    "cut.tif": lambda path: truncated(noise(64, 64), path, 0.6),
    "cut.webp": lambda path: truncated(noise(64, 64), path, 0.6),
    "cut.bmp": lambda path: truncated(noise(64, 64), path, 0.6),
    "header.png": lambda path: truncated(noise(64, 64), path, 0.002),
    "gray.png": lambda path: truncated(noise(64, 64)[:, :, 0], path, 0.6),
}


@pytest.mark.filterwarnings("ignore:.*(Corrupt EXIF|Truncated).*:UserWarning")
@pytest.mark.parametrize("read", [read_image, read_mask])
@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_named(name: str, read: Callable[[Path], Array], tmp_path: Path) -> None:
    DAMAGE[name](tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name}: .*replace or remove it"):
        read(tmp_path / name)


@pytest.mark.parametrize("read", [read_image, read_mask])
def test_what_is_no_file_is_named(read: Callable[[Path], Array], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.png: .*found nothing"):
        read(tmp_path / "gone.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=r"folder\.png: .*found a folder"):
        read(tmp_path / "folder.png")


def test_a_picture_too_large_to_decode_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(noise(40, 40)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"huge\.png: .*split the image"):
        read_image(tmp_path / "huge.png")


def test_a_large_picture_is_read_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(noise(40, 40)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow warns from here on, and refuses from twice as many
    np.testing.assert_array_equal(read_image(tmp_path / "large.png"), noise(40, 40))


@pytest.mark.parametrize(("enough", "factor"), [((400, 300), 2), ((200, 150), 4), ((90, 60), 8), ((800, 600), 1)])
def test_a_jpeg_is_decoded_no_larger_than_needed(enough: tuple[int, int], factor: int, tmp_path: Path) -> None:
    y, x = np.mgrid[:603, :801]
    smooth = np.stack([x / 4, y / 4, (x + y) / 8], axis=2).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    Image.fromarray(smooth).save(tmp_path / "a.png")
    reduced = read_image(tmp_path / "a.jpg", Decoding(enough=enough))
    assert reduced.shape == (-(-603 // factor), -(-801 // factor), 3)
    expected = smooth[factor // 2 :: factor, factor // 2 :: factor]
    height, width = expected.shape[:2]
    assert np.abs(reduced[:height, :width].astype(int) - expected.astype(int)).max() < 6
    assert read_image(tmp_path / "a.png", Decoding(enough=enough)).shape == smooth.shape

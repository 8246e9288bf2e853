import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from segformer.report.pictures import pictures, thumbnail

PALETTE = [(128, 64, 128), (0, 0, 142)]


def photograph(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 40, (height, width, 3))
    return (noise + np.linspace(0, 200, width)[:, None]).astype(np.uint8)


def mask(height: int, width: int) -> np.ndarray:
    labels = (np.indices((height, width)).sum(0) > width).astype(int)
    return np.asarray(PALETTE, np.uint8)[labels]


def embedded(html: str) -> list[Image.Image]:
    uris = re.findall(r'src="data:image/\w+;base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(uri))) for uri in uris]


def test_thumbnails_fit_and_never_grow() -> None:
    assert thumbnail(photograph(100, 400), 200, 640).size == (200, 50)
    assert thumbnail(photograph(100, 400), 640, 50).size == (200, 50)
    assert thumbnail(photograph(20, 30), 200, 200).size == (30, 20)


def test_pictures_are_embedded_at_their_size() -> None:
    images = [("image", photograph(60, 90)), ("label", mask(60, 90))]
    html = pictures([("0001.png", images)])
    photo, label = embedded(html)
    assert (photo.format, photo.size) == ("JPEG", (90, 60))
    assert (label.format, label.size) == ("PNG", (90, 60))
    assert np.array_equal(np.asarray(label), mask(60, 90))
    assert 'alt="0001.png: image" width="90" height="60"' in html


@pytest.mark.parametrize(("size", "shrunk"), [((320, 1280), (640, 160)), ((1280, 640), (320, 640))])
def test_large_pictures_are_shrunk(size: tuple[int, int], shrunk: tuple[int, int]) -> None:
    html = pictures([("a", [("image", photograph(*size)), ("label", mask(*size))])])
    photo, label = embedded(html)
    assert photo.size == label.size == shrunk
    assert {color for _, color in label.getcolors() or []} == set(PALETTE)

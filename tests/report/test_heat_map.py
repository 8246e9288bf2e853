import numpy as np
from PIL import Image

from segformer.report.heat_map import (
    GAP,
    MARGIN,
    TILE,
    central,
    colored,
    figure,
    log_scaled,
    marked,
    over_image,
    pooled,
)


def test_colors_run_from_violet_to_yellow_and_get_lighter() -> None:
    colors = colored(np.linspace(-0.5, 1.5, 101)[None])[0].astype(float)
    assert colors[0].tolist() == [68, 1, 84]
    assert colors[-1].tolist() == [253, 231, 37]
    lightness = colors @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) >= 0).all()


def test_the_log_scale_spans_four_decades() -> None:
    np.testing.assert_allclose(log_scaled(np.array([[50, 5, 0.5, 0.005, 0.0005, 0]])), [[1, 0.75, 0.5, 0, 0, 0]])
    assert not log_scaled(np.zeros((2, 2))).any()


def test_pooling_keeps_the_mass() -> None:
    values = np.random.default_rng(0).random((512, 256))
    small = pooled(values, 128)
    assert small.shape == (128, 64)
    np.testing.assert_allclose(small[3, 5], values[12:16, 20:24].mean())
    np.testing.assert_allclose(small.mean(), values.mean())
    assert pooled(values, 600) is not None
    np.testing.assert_array_equal(pooled(values, 600), values)


def test_the_middle_is_cut_around_the_central_pixel() -> None:
    values = np.zeros((64, 128))
    values[32, 64] = 1
    assert central(values).shape == (16, 32)
    assert central(values)[8, 16] == 1


def test_attention_lies_over_the_image() -> None:
    image = np.full((32, 64, 3), 100, dtype=np.uint8)
    laid = over_image(np.array([[0.0, 0.0], [0.0, 1.0]]), image).astype(int)
    assert laid.shape == image.shape
    np.testing.assert_allclose(laid[0, 0], 0.65 * np.array([68, 1, 84]) + 35, atol=1)
    np.testing.assert_allclose(laid[-1, -1], 0.65 * np.array([253, 231, 37]) + 35, atol=1)
    assert over_image(np.ones((2, 2)), image).shape == image.shape
    assert not image.std()
    assert (marked(image, (16, 32))[16, 32] != 100).any()
    assert (marked(image, (16, 32))[0] == 100).all()


def test_the_figure_has_a_row_for_each_model_and_a_blank_for_no_decoder() -> None:
    spot = np.zeros((128, 128))
    spot[60:68, 60:68] = 1
    flat = np.ones((128, 128))
    picture = figure({"ours": {"stage 4": spot, "decoder": flat}, "theirs": {"stage 4": flat}}, ["stage 4", "decoder"])
    pixels = np.asarray(picture)
    assert isinstance(picture, Image.Image)
    assert pixels.shape[1] == 2 * MARGIN + 2 * TILE + GAP
    left, right = (slice(MARGIN + k * (TILE + GAP), MARGIN + k * (TILE + GAP) + TILE) for k in (0, 1))
    yellow = (pixels == (253, 231, 37)).all(axis=2)
    scale = MARGIN + 3 * 14  # rows at the bottom
    assert yellow[:-scale, right].sum() == TILE * TILE  # the flat decoder
    assert TILE * TILE < yellow[:-scale, left].sum() < 1.1 * TILE * TILE  # the flat stage, and the spot's middle
    assert (pixels[-scale - TILE // 2, right] == 255).all()

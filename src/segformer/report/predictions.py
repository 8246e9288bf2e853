"""Pictures that show images, labels and predictions side by side."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from segformer.arrays import Array, to_pixels
from segformer.config import IGNORE_INDEX, ModelCard
from segformer.data.dataset import DataSource, Sample
from segformer.data.images import displayed
from segformer.inference.predictor import Predictor
from segformer.inference.samples import check_classes, load_whole
from segformer.models.interfaces import Network
from segformer.report.html import legend, paragraph
from segformer.report.pictures import LONG_SIDE, Picture, PictureRow, pictures, thumbnail
from segformer.segmentation import Segmentation, colorize

GRID_WIDTH = 320  # largest width of a picture in a grid, in pixels
GAP = 4  # space between the pictures of a grid, in pixels
COLUMN = 158  # minimum width of a picture on a page, in pixels: five fit side by side on a screen, two on a phone
WRONG = (214, 39, 40)  # color of pixels that are predicted wrongly


def prediction_rows(model: Network, source: DataSource, split: str, count: int = 4) -> list[PictureRow]:
    """Segment ``count`` evenly spaced samples of a split and draw each prediction beside its label.

    The model's own test protocol is used.  Raises a UserError if the model's classes are not those of the data set.
    """
    check_classes(model, source)
    samples = source.samples(split)
    indices = np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(int)
    return draw_samples(Predictor(model), source, [samples[k] for k in indices])


def draw_samples(predictor: Predictor, source: DataSource, samples: Sequence[Sample]) -> list[PictureRow]:
    """Segment samples and draw each prediction beside its label, at most 640 pixels high and wide."""
    rows: list[PictureRow] = []
    images = load_whole(source, samples, 0, predictor.decoding)
    for sample, (image, label) in zip(samples, images, strict=True):
        prediction = predictor.mask(image).cpu().numpy()
        truth = label.numpy()
        caption = f"{sample.name}: {share_right(prediction, truth)}"
        rows.append((caption, draw(to_pixels(image), truth, prediction, predictor.model.card)))
    return rows


def draw(pixels: Array, label: Array, prediction: Array, card: ModelCard) -> list[Picture]:
    """Return pictures of the image, its label, its prediction, the prediction over the image, and the errors.

    The image is shrunk before the overlay is drawn, so that the borders in the overlay stay visible.
    Image (H, W, C), label and prediction (H, W)
    """
    image = Image.fromarray(displayed(pixels))
    image.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
    label, prediction = (
        np.asarray(Image.fromarray(mask.astype(np.uint8)).resize(image.size, Image.Resampling.NEAREST))
        for mask in (label, prediction)
    )
    result = Segmentation(prediction, card.classes, card.palette, np.asarray(image))
    return [
        ("image", np.asarray(image)),
        ("label", colorize(label, card.palette)),
        ("prediction", result.colors()),
        ("overlay", result.overlay()),
        ("errors", draw_errors(np.asarray(image), label, prediction)),
    ]


def draw_errors(image: Array, label: Array, prediction: Array) -> Array:
    """Return the image in gray, with wrong pixels in red and ignored pixels in black.  (H, W, 3) -> (H, W, 3) uint8"""
    gray = 0.6 * image.mean(axis=2, keepdims=True) + 90
    shown = np.repeat(gray, 3, axis=2).clip(0, 255)
    ignored = label == IGNORE_INDEX
    wrong = (label != prediction) & ~ignored
    shown[wrong] = 0.3 * shown[wrong] + 0.7 * np.array(WRONG)
    shown[ignored] = 0
    return np.asarray(shown.round(), dtype=np.uint8)


def share_right(prediction: Array, label: Array) -> str:
    """Return a text that says which share of the labeled pixels is predicted correctly."""
    labeled = label != IGNORE_INDEX
    if not labeled.any():
        return "no pixel is labeled"
    return f"{100 * (prediction == label)[labeled].mean():.1f} % of the labeled pixels are right"


def picture_grid(rows: Sequence[PictureRow]) -> Array:
    """Arrange pictures in rows in one image, without captions, each at most 320 pixels wide.  -> (H, W, 3) uint8"""
    lines = [[thumbnail(pixels, GRID_WIDTH, LONG_SIDE) for _, pixels in images] for _, images in rows]
    width = GAP + max(image.width for line in lines for image in line)
    heights = [GAP + max(image.height for image in line) for line in lines]
    grid = Image.new("RGB", (max(map(len, lines)) * width - GAP, sum(heights) - GAP), "white")
    for i, line in enumerate(lines):
        for j, image in enumerate(line):
            grid.paste(image, (j * width, sum(heights[:i])))
    return np.asarray(grid)


def gallery(rows: Sequence[PictureRow], card: ModelCard, intro: str) -> list[str]:
    """Return HTML fragments: the text ``intro``, a legend of the classes that occur in the pictures, the pictures."""
    seen = {
        color
        for _, images in rows
        for label, pixels in images
        if label in ("label", "prediction")
        for _, color in Image.fromarray(pixels).getcolors(len(card.palette) + 1) or []
    }
    shown = [(name, color) for name, color in zip(card.classes, card.palette, strict=True) if tuple(color) in seen]
    names = [name for name, _ in shown]
    colors = [color for _, color in shown]
    return [paragraph(intro), legend(names, colors), pictures(rows, column_width=COLUMN)]

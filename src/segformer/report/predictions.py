"""Predictions beside their labels, as pictures and as parts of a page."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from segformer.arrays import Array
from segformer.config import IGNORE_INDEX, EvalConfig, ModelCard
from segformer.data.dataset import DataSource, Sample
from segformer.data.images import displayed
from segformer.inference.samples import check_classes, decoding_of, load_whole
from segformer.inference.windows import predict_mask
from segformer.models.interfaces import Network
from segformer.models.segmenter import for_inference
from segformer.report import html as report
from segformer.segmentation import Segmentation, colorize

Rows = list[tuple[str, list[tuple[str, Array]]]]

GRID_WIDTH, GAP = 320, 4  # of the pictures in a grid, in pixels
COLUMN = 170  # of a page, in pixels: five pictures side by side
WRONG = (214, 39, 40)


def prediction_rows(model: Network, source: DataSource, split: str, count: int = 4) -> Rows:
    """Segment evenly spaced samples of a split by the model's own protocol: a caption and labelled pictures for each.

    Pictures are (H, W, 3) uint8 of at most 640 pixels a side.  Raises a UserError where the model's classes are not
    those of the data.
    """
    check_classes(model, source)
    samples = source.samples(split)
    places = np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(int)
    return rows_of(model, source, [samples[k] for k in places], model.card.eval)


def rows_of(model: Network, source: DataSource, samples: Sequence[Sample], config: EvalConfig) -> Rows:
    """Segment samples: a caption and labelled pictures for each, of at most 640 pixels a side."""
    fused, rows = for_inference(model), []
    images = load_whole(source, samples, 0, decoding_of(model))
    for sample, (image, label) in zip(samples, images, strict=True):
        prediction, truth = predict_mask(fused, image, config).cpu().numpy(), label.numpy()
        pictures = draw(image.numpy().transpose(1, 2, 0), truth, prediction, model.card)
        rows.append((f"{sample.name}: {share_right(prediction, truth)}", pictures))
    return rows


def draw(pixels: Array, label: Array, prediction: Array, card: ModelCard) -> list[tuple[str, Array]]:
    """Picture an image (H, W, C) with its masks (H, W), shrunk before the overlay so that its borders stay visible."""
    image = Image.fromarray(displayed(pixels))
    image.thumbnail((report.LONG_SIDE, report.LONG_SIDE), Image.Resampling.LANCZOS)
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
    """The image in grey with what is wrong in red and what is ignored in black.  -> (H, W, 3) uint8"""
    grey = 0.6 * image.mean(axis=2, keepdims=True) + 90
    shown = np.repeat(grey, 3, axis=2).clip(0, 255)
    wrong, ignored = (label != prediction) & (label != IGNORE_INDEX), label == IGNORE_INDEX
    shown[wrong] = 0.3 * shown[wrong] + 0.7 * np.array(WRONG)
    shown[ignored] = 0
    return np.asarray(shown.round(), dtype=np.uint8)


def share_right(prediction: Array, label: Array) -> str:
    """Say how many of the labelled pixels are right."""
    labelled = label != IGNORE_INDEX
    if not labelled.any():
        return "no pixel is labelled"
    return f"{100 * (prediction == label)[labelled].mean():.1f} % of the labelled pixels are right"


def picture_grid(rows: Rows) -> Array:
    """Set the pictures of at least one row into a grid, each at most 320 pixels wide.  -> (H, W, 3) uint8"""
    lines = [[report.thumbnail(pixels, GRID_WIDTH, report.LONG_SIDE) for _, pixels in pictures] for _, pictures in rows]
    width = GAP + max(image.width for line in lines for image in line)
    heights = [GAP + max(image.height for image in line) for line in lines]
    grid = Image.new("RGB", (max(map(len, lines)) * width - GAP, sum(heights) - GAP), "white")
    for i, line in enumerate(lines):
        for j, image in enumerate(line):
            grid.paste(image, (j * width, sum(heights[:i])))
    return np.asarray(grid)


def predictions(rows: Rows, card: ModelCard, intro: str) -> list[str]:
    """Set pictures below the colours that occur in them."""
    seen = {
        color
        for _, pictures in rows
        for label, pixels in pictures
        if label in ("label", "prediction")
        for _, color in Image.fromarray(pixels).getcolors(len(card.palette) + 1) or []
    }
    shown = [(name, color) for name, color in zip(card.classes, card.palette, strict=True) if tuple(color) in seen]
    names, colors = zip(*shown, strict=True) if shown else ((), ())
    return [report.paragraph(intro), report.legend(names, colors), report.pictures(rows, column_width=COLUMN)]


def confusions(confusion: Array, classes: Sequence[str]) -> list[str]:
    """Set the confusion matrix."""
    return [
        report.paragraph("Rows are labels: what their pixels are taken for, in percent. Columns are predictions."),
        report.confusion(confusion, classes),
    ]

"""Pictures of corrupted images, each above the mask that a model predicts for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from segformer.arrays import Array
from segformer.config import ModelCard
from segformer.data.dataset import Sample
from segformer.inference.predictor import Predictor
from segformer.robustness.corruptions import display_name
from segformer.robustness.result import CLEAN, Cell, Robustness
from segformer.robustness.sample import CorruptedSample
from segformer.segmentation import Segmentation

NUM_SAMPLES = 2  # images shown with every corruption
SHOWN_SEVERITY = 3
WIDTH = 320  # greatest width and height of an image, in pixels

Pictures = list[tuple[str, Array]]
"""Pictures as (label, pixels).  (H, W, 3) uint8"""


@dataclass(frozen=True)
class PredictionDrawer:
    """Draws a sample, clean or corrupted, with the mask that the model predicts for each version."""

    predictor: Predictor
    seed: int
    """Seed of the corruptions."""
    frost: Path | None
    """Folder of frost photographs; None: the ice is drawn."""

    def draw(self, sample: Sample, cells: Sequence[Cell]) -> Pictures:
        """Return one picture for each cell: the image, and below it a copy overlaid with the predicted mask."""
        pictures = []
        for cell in cells:
            shown = sample if cell == CLEAN else CorruptedSample(sample, *cell, self.seed, self.frost)
            pixels = shown.read()[0]
            label = "clean" if cell == CLEAN else f"{display_name(cell[0])} {cell[1]}"
            mask = np.asarray(self.predictor.segment(pixels).mask)
            pictures.append((label, above_overlay(pixels, mask, self.predictor.model.card)))
        return pictures


def picture_rows(result: Robustness, drawer: PredictionDrawer, samples: Sequence[Sample]) -> list[tuple[str, Pictures]]:
    """Draw a few samples with every corruption, and the first sample with the hardest corruption at every severity.

    Returns rows of pictures, each with a caption.
    """
    measured = samples[: result.setting["num_images"]]
    chosen = np.linspace(0, len(measured) - 1, min(NUM_SAMPLES, len(measured))).astype(int)
    severity = min(result.severities, key=lambda s: abs(s - SHOWN_SEVERITY), default=SHOWN_SEVERITY)
    cells = [CLEAN, *((name, severity) for name in result.corruptions)]
    rows = [(f"{measured[k].name}, severity {severity}", drawer.draw(measured[k], cells)) for k in chosen]
    if len(result.severities) > 1:
        hardest = min(result.corruptions, key=lambda name: np.nan_to_num(result.miou(name), nan=np.inf))
        caption = f"{measured[0].name} with the corruption that is hardest for this model: {display_name(hardest)}"
        cells = [CLEAN, *((hardest, severity) for severity in result.severities)]
        rows.append((caption, drawer.draw(measured[0], cells)))
    return rows


def above_overlay(pixels: Array, mask: Array, card: ModelCard) -> Array:
    """Shrink an image, and append below it a copy overlaid with the mask.  (H, W, 3), (H, W) -> (2 h, w, 3)"""
    image = Image.fromarray(pixels)
    image.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    small_mask = Image.fromarray(mask.astype(np.uint8)).resize(image.size, Image.Resampling.NEAREST)
    small = np.asarray(image)
    overlay = Segmentation(np.asarray(small_mask), card.classes, card.palette, small).overlay()
    return np.concatenate([small, overlay])

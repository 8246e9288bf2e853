"""A small pre-training run for tests: its recipe and its images."""

from pathlib import Path

import numpy as np
from PIL import Image

from segformer.pretraining.recipes import PretrainRecipe

SMALL = PretrainRecipe(
    name="small",
    description="For tests.",
    encoder="mit_b0",
    size=32,
    epochs=2,
    batch_size=8,
    warmup_epochs=1,
    base_lr=2e-2,
    log_every=1,
    workers=0,
)
COLORS = {"green": (40, 160, 60), "blue": (60, 80, 170), "red": (180, 60, 40)}


def write_pictures(root: Path) -> Path:
    """Three classes that differ in color, 16 images of 40 x 48 each to train on and 5 to evaluate on."""
    rng = np.random.default_rng(0)
    for split, number in (("train", 16), ("val", 5)):
        for name, color in COLORS.items():
            (root / split / name).mkdir(parents=True)
            for index in range(number):
                noise = rng.normal(0, 30, (40, 48, 3)) + rng.normal(0, 15)
                image = (np.array(color) + noise).clip(0, 255).astype(np.uint8)
                Image.fromarray(image).save(root / split / name / f"{index}.png")
    return root

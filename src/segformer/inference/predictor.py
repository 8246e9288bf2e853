"""Image, path, array or folder in, Segmentation out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from segformer.checkpoints.model_folder import load
from segformer.config import EvalConfig, Precision, check_choice
from segformer.data.decoding import to_rgb
from segformer.data.image_paths import expand_inputs
from segformer.data.images import Decoding, displayed, image_array, read_image
from segformer.errors import UserError
from segformer.inference.windows import predict_mask, predict_scores
from segformer.models.interfaces import Network
from segformer.models.segmenter import for_inference
from segformer.segmentation import Segmentation

WARM_UP = 3  # calls: the first compiles, the second records a CUDA graph
DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Predictor:
    """Segments images with a model, by the model's own preprocessing and test protocol (or ``config``).

    ``model`` may also be what ``load`` takes.  A model is left as it is: a fused copy does the work, in ``precision``,
    and compiled for the first few sizes of images where ``compile`` is set.  ``scores`` adds class probabilities at the
    image's size, which take K times its memory.
    """

    def __init__(
        self,
        model: Network | str | Path,
        *,
        config: EvalConfig | None = None,
        scores: bool = False,
        precision: Precision = "fp32",
        compile: bool = False,
    ) -> None:
        check_choice("precision", precision, DTYPES)
        loaded = load(model) if isinstance(model, str | Path) else model
        self.model = for_inference(loaded, DTYPES[precision], compile=compile)
        self.config = config or self.model.card.eval
        self.scores = scores
        self.decoding = Decoding.from_model(self.model.card.model, self.model.card.preprocessing)

    def __call__(self, image: str | Path | NDArray[Any] | Image.Image) -> Segmentation:
        """Segment one image: a path, a Pillow image, or an array (H, W), (H, W, 3 | 4) of uint8 or uint16.

        For a model of raw pixels an array holds its channels, (H, W, C) of any numbers, in the units of its training.
        """
        if isinstance(image, str | Path):
            pixels = self.read(image)
        elif isinstance(image, Image.Image) and self.decoding.pixels == "rgb":
            pixels = to_rgb(image)
        else:
            pixels = image_array(np.asarray(image), self.decoding)
        return self.segment(pixels)

    def warm_up(self, *sizes: tuple[int, int]) -> None:
        """Segment black images of these (height, width), so that what is compiled or recorded for them is so early."""
        channels = self.model.card.model.in_channels
        for size in sizes:
            if len(size) != 2 or min(size) < 1:
                raise UserError(f"a size must be a positive (height, width), got {tuple(size)}")
            for _ in range(WARM_UP):
                self.segment(np.zeros((*size, channels), dtype=np.uint8))

    def read(self, path: str | Path) -> NDArray[Any]:
        """Decode a file to what ``segment`` takes."""
        return read_image(path, self.decoding)

    def folder(self, folder: str | Path) -> Iterator[tuple[Path, Segmentation]]:
        """Segment every image below a folder, one after the other, with its path relative to the folder."""
        for path, relative in expand_inputs([folder]):
            yield relative, self(path)

    def segment(self, pixels: NDArray[Any]) -> Segmentation:
        """(H, W, C) uint8 or float32 -> Segmentation"""
        image = torch.from_numpy(np.array(pixels.transpose(2, 0, 1)))
        card = self.model.card
        if self.scores:
            probabilities = predict_scores(self.model, image, self.config)
            mask, scores = probabilities.argmax(dim=0), probabilities.float().cpu().numpy()
        else:
            mask, scores = predict_mask(self.model, image, self.config), None
        dtype = np.uint8 if len(card.classes) <= 256 else np.uint16
        return Segmentation(mask.cpu().numpy().astype(dtype), card.classes, card.palette, displayed(pixels), scores)

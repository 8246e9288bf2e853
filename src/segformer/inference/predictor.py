"""``Predictor``, which segments images with any network."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from segformer.arrays import Array, to_tensor
from segformer.checkpoints.model_folder import load
from segformer.config import EvalConfig, Precision, Size
from segformer.data.decoding import to_rgb
from segformer.data.image_paths import expand_inputs
from segformer.data.images import Decoding, displayed, image_array, read_image
from segformer.errors import UserError
from segformer.inference.windows import predict_mask, predict_scores, predict_with_scores
from segformer.models.interfaces import Network
from segformer.models.segmenter import for_inference
from segformer.segmentation import Segmentation
from segformer.validation import check_choice

WARM_UP = 3  # calls for each size: the first one compiles, the second one records a CUDA graph
DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Predictor:
    """Segments images with any network, using the network's own preprocessing and test protocol.

        Predictor("runs/camvid_b0/best")("photo.jpg").save("out/photo", ["mask", "overlay"])

    ``model`` is a Network, or anything that ``load`` takes: a folder, a checkpoint, a name on the hub.  A Segmenter is
    not changed; a faster, fused copy is used.  ``config`` replaces the network's test protocol.  ``scores`` adds class
    probabilities (K, H, W) to each result.  ``precision`` is the number format of the computation; ``compile`` compiles
    the network for the first eight image sizes.
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
        network = load(model) if isinstance(model, str | Path) else model
        self.model = for_inference(network, DTYPES[precision], compile=compile)
        self.config = config or self.model.card.eval
        self.scores = scores
        self.decoding = Decoding.from_model(self.model.card.model, self.model.card.preprocessing)

    def __call__(self, image: str | Path | NDArray[Any] | Image.Image) -> Segmentation:
        """Segment one image: a path, a Pillow image, or an array (H, W), (H, W, 3) or (H, W, 4) of uint8 or uint16.

        A model for raw pixels takes arrays (H, W) or (H, W, C) of any numeric type, in the training images' units.
        """
        if isinstance(image, str | Path):
            pixels = self.read(image)
        elif isinstance(image, Image.Image) and self.decoding.pixels == "rgb":
            pixels = to_rgb(image)
        else:
            pixels = image_array(np.asarray(image), self.decoding)
        return self.segment(pixels)

    def folder(self, folder: str | Path) -> Iterator[tuple[Path, Segmentation]]:
        """Segment every image below a folder; yields the image's path, relative to the folder, and its result."""
        for path, relative in expand_inputs([folder]):
            yield relative, self(path)

    def read(self, path: str | Path) -> Array:
        """Decode an image file.  -> (H, W, C) uint8 or float32"""
        return read_image(path, self.decoding)

    def segment(self, pixels: Array) -> Segmentation:
        """Segment an image that ``read`` has decoded.  (H, W, C) uint8 or float32"""
        image = to_tensor(pixels)
        card = self.model.card
        if self.scores:
            probabilities = predict_scores(self.model, image, self.config)
            mask = probabilities.argmax(dim=0)
            scores = probabilities.float().cpu().numpy()
        else:
            mask = self.mask(image)
            scores = None
        dtype = np.uint8 if len(card.classes) <= 256 else np.uint16
        return Segmentation(mask.cpu().numpy().astype(dtype), card.classes, card.palette, displayed(pixels), scores)

    def mask(self, image: Tensor) -> Tensor:
        """Return the class of every pixel, on the model's device.  (C, H, W) uint8 or float32 -> (H, W) int64"""
        return predict_mask(self.model, image, self.config)

    def mask_with_scores(self, image: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mask, and the logits of each class at N pixels.  (C, H, W), (N,) -> (H, W), (N, K)

        ``points`` are indices of pixels, counted row by row.  With several scales or flips, the logarithms of the mean
        probabilities are returned instead of logits.
        """
        return predict_with_scores(self.model, image, self.config, points)

    def warm_up(self, *sizes: Size) -> None:
        """Segment a black image of each size (height, width), so that compilation does not delay real images."""
        channels = self.model.card.model.in_channels
        for size in sizes:
            if len(size) != 2 or min(size) < 1:
                raise UserError(f"a size must be a positive (height, width), got {tuple(size)}")
            for _ in range(WARM_UP):
                self.segment(np.zeros((*size, channels), dtype=np.uint8))

"""The test protocols of ADE20K and Cityscapes, step by step in NumPy and OpenCV."""

import cv2
import numpy as np
import pytest
import torch

from segformer.config import EvalConfig, Preprocessing
from segformer.data.transforms import preprocess
from segformer.inference.windows import predict_mask, predict_scores
from segformer.models.build import build_model
from segformer.models.segmenter import Segmenter
from segformer.recipes import RECIPES

MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])


def model_of(recipe: str, num_classes: int) -> Segmenter:
    """MiT-B0 whose masks have regions of many classes."""
    torch.manual_seed(0)
    model = build_model("mit_b0", num_classes=num_classes, preprocessing=RECIPES[recipe].preprocessing).eval()
    torch.nn.init.normal_(model.decoder.classifier.weight, std=0.5)
    return model


def picture(height: int, width: int) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (9, 16, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def logits_of(model: Segmenter, pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) gray levels -> (H/4, W/4, K) by the trainable model, not the fused one."""
    normal = ((pixels - MEAN) / STD).transpose(2, 0, 1)[None]
    with torch.no_grad():
        return model(torch.from_numpy(normal).float())[0].numpy().transpose(1, 2, 0)


def enlarged(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """OpenCV takes no more than four channels at once."""
    return np.stack([cv2.resize(m, (width, height), interpolation=cv2.INTER_LINEAR) for m in np.moveaxis(maps, 2, 0)])


def softmax(scores: np.ndarray) -> np.ndarray:
    values = np.exp(scores.astype(np.float64) - scores.max(axis=0))
    return values / values.sum(axis=0)


def compare(model: Segmenter, image: np.ndarray, config: EvalConfig, expected: np.ndarray) -> None:
    """Probabilities, and masks where those of the two best classes differ."""
    tensor = torch.from_numpy(image.transpose(2, 0, 1).copy())
    np.testing.assert_allclose(predict_scores(model, tensor, config).numpy(), expected, atol=2e-4)
    mask = predict_mask(model, tensor, config).numpy()
    second, best = np.sort(expected, axis=0)[-2:]
    assert (mask == expected.argmax(axis=0))[best - second > 4e-4].all()
    assert (best - second > 4e-4).mean() > 0.99
    assert len(np.unique(mask)) > 3


def resized(model: Segmenter, image: np.ndarray, sizes: list[tuple[int, int]], scale: float = 1.0) -> np.ndarray:
    """What the model sees; each of the resizes is OpenCV's to one gray level."""
    pixels = image
    for height, width in sizes:
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    ours = preprocess(torch.from_numpy(image.transpose(2, 0, 1).copy()), model.card.preprocessing, scale)
    ours = ours.numpy().transpose(1, 2, 0)
    assert ours.shape == pixels.shape
    assert np.abs(ours.astype(int) - pixels).max() <= len(sizes)
    assert np.abs(ours.astype(int) - pixels).mean() < 0.3
    return ours.astype(np.float64)


@pytest.mark.parametrize(
    ("size", "fitted", "aligned"),
    [
        ((375, 500), (512, 683), (512, 704)),
        ((683, 300), (1166, 512), (1184, 512)),
        ((200, 1000), (410, 2048), (416, 2048)),
    ],
)
def test_ade20k(size: tuple[int, int], fitted: tuple[int, int], aligned: tuple[int, int]) -> None:
    model, image = model_of("ade20k_b0", 150), picture(*size)
    # fit into 2048 x 512, aspect kept, sides rounded half up
    scale = min(2048 / max(size), 512 / min(size))
    assert tuple(int(side * scale + 0.5) for side in size) == fitted
    # then each side up to a multiple of 32, by a second resize
    assert tuple(-(-side // 32) * 32 for side in fitted) == aligned
    pixels = resized(model, image, [fitted, aligned])
    # the whole image at once, logits bilinear to the original size, softmax
    expected = softmax(enlarged(logits_of(model, pixels), *size))
    compare(model, image, RECIPES["ade20k_b0"].eval, expected)


def test_cityscapes() -> None:
    model, image, config = model_of("cityscapes_b0", 19), picture(1024, 2048), RECIPES["cityscapes_b0"].eval
    assert (config.crop, config.stride) == ((1024, 1024), (768, 768))
    total, count = np.zeros((19, 1024, 2048), dtype=np.float32), np.zeros((1024, 2048), dtype=np.float32)
    for left in (0, 768, 1024):  # the last window is shifted back inside
        window = image[:, left : left + 1024].astype(np.float64)
        total[:, :, left : left + 1024] += enlarged(logits_of(model, window), 1024, 1024)
        count[:, left : left + 1024] += 1
    compare(model, image, config, softmax(total / count))


def test_several_scales_and_mirror_images() -> None:
    model, image, size = model_of("ade20k_b0", 150), picture(150, 200), (150, 200)
    model.card = build_model("mit_b0", num_classes=150, preprocessing=Preprocessing(long_side=512, short_side=128)).card
    config = EvalConfig(scales=(0.75, 1.0, 1.25), flip=True)
    expected = np.zeros((150, *size))
    for scale in config.scales:
        long, short = int(512 * scale + 0.5), int(128 * scale + 0.5)
        factor = min(long / 200, short / 150)
        fitted = (int(150 * factor + 0.5), int(200 * factor + 0.5))
        aligned = (-(-fitted[0] // 32) * 32, -(-fitted[1] // 32) * 32)
        for mirrored in (False, True):
            pixels = resized(model, image[:, ::-1] if mirrored else image, [fitted, aligned], scale)
            scores = softmax(enlarged(logits_of(model, pixels), *size))
            expected += (scores[:, :, ::-1] if mirrored else scores) / 6
    compare(model, image, config, expected)

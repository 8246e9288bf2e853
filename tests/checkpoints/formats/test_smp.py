from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import segformer
from segformer.checkpoints.conversion import convert
from segformer.models.segmenter import Segmenter
from segformer.published import MIT_SIZES
from transformers_parity import randomize, relative_difference

SLOW = [pytest.param(f"mit_b{n}", marks=pytest.mark.slow) for n in (1, 3, 4, 5)]


def smp_model(encoder: str, *, classes: int = 7, in_channels: int = 3, width: int | None = None) -> nn.Module:
    torch.manual_seed(0)
    model = smp.Segformer(
        encoder,
        encoder_weights=None,
        decoder_segmentation_channels=width or MIT_SIZES[encoder].decoder_channels,
        in_channels=in_channels,
        classes=classes,
    )
    randomize(model)
    return model.eval()


@torch.inference_mode()
def assert_same(ours: Segmenter, theirs: nn.Module, in_channels: int = 3) -> None:
    """SMP upsamples its logits fourfold, with align_corners."""
    images = torch.randn(1, in_channels, 64, 96)
    upsampled = F.interpolate(ours(images), scale_factor=4, mode="bilinear", align_corners=True)
    assert relative_difference(upsampled, theirs(images)) < 1e-5


@pytest.mark.parametrize("encoder", ["mit_b0", "mit_b2", *SLOW])
def test_there_and_back(encoder: str, tmp_path: Path) -> None:
    theirs: Any = smp_model(encoder)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = segformer.load(tmp_path / "theirs")
    config = ours.card.model
    assert (config.encoder, config.decoder_channels) == (encoder, MIT_SIZES[encoder].decoder_channels)
    assert (config.norm_eps, config.embed_norm_eps, config.align_corners) == (1e-6, 1e-5, True)
    assert_same(ours, theirs)
    assert all("holds no" in note for note in convert(tmp_path / "theirs", tmp_path / "back", "smp"))
    back = smp.from_pretrained(tmp_path / "back", strict=True).eval()
    assert_same(ours, back)
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name


@pytest.mark.parametrize(("classes", "in_channels", "width"), [(1, 3, None), (2, 3, 64), (19, 4, None), (150, 3, None)])
def test_classes_channels_and_width(classes: int, in_channels: int, width: int | None, tmp_path: Path) -> None:
    theirs: Any = smp_model("mit_b0", classes=classes, in_channels=in_channels, width=width)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = segformer.load(tmp_path / "theirs")
    assert len(ours.card.classes) == max(classes, 2)
    assert ours.card.model.in_channels == len(ours.card.preprocessing.mean) == in_channels
    convert(tmp_path / "theirs", tmp_path / "back", "smp")
    back = smp.from_pretrained(tmp_path / "back", strict=True).eval()
    assert_same(ours, back, in_channels)
    if classes > 1:
        assert_same(ours, theirs, in_channels)


@torch.inference_mode()
def test_one_class_is_a_threshold(tmp_path: Path) -> None:
    theirs: Any = smp_model("mit_b0", classes=1)
    normalized = torch.randn(1, 3, 64, 96)
    theirs.segmentation_head[0].bias -= theirs(normalized).median()
    torch.save(theirs.state_dict(), tmp_path / "binary.pth")
    ours = segformer.load(tmp_path / "binary.pth")
    pixels = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    logits = theirs(ours.normalize(pixels))[:, 0]
    clear = logits.abs() > 1e-4 * logits.abs().max()
    expected = logits.sigmoid() > 0.5
    assert 0.02 < expected.float().mean() < 0.98
    assert torch.equal(ours.predict_mask(pixels)[clear], expected[clear].long())


@torch.inference_mode()
def test_masks_are_upsampled_with_align_corners(tmp_path: Path) -> None:
    theirs = smp_model("mit_b0")
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "model.ckpt")
    ours = segformer.load(tmp_path / "model.ckpt")
    pixels = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    scores: Tensor = theirs(ours.normalize(pixels))
    first, second = scores.topk(2, dim=1).values.unbind(1)
    clear = first - second > 1e-4 * scores.abs().max()
    assert clear.float().mean() > 0.95
    assert torch.equal(ours.predict_mask(pixels)[clear], scores.argmax(1)[clear])
    otherwise = F.interpolate(ours(ours.normalize(pixels)), (64, 96), mode="bilinear", align_corners=False).argmax(1)
    assert not torch.equal(ours.predict_mask(pixels)[clear], otherwise[clear])


def test_a_training_wrappers_prefix(tmp_path: Path) -> None:
    theirs = smp_model("mit_b0")
    torch.save({"state_dict": {f"model.{k}": v for k, v in theirs.state_dict().items()}}, tmp_path / "epoch.ckpt")
    assert_same(segformer.load(tmp_path / "epoch.ckpt"), theirs)

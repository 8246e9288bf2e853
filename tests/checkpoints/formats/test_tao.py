from pathlib import Path

import pytest
import torch
from torch import Tensor

import segformer
from checkpoints.formats.test_nvlabs import CLASSES, PALETTE, assert_computes, filled, reference, segmentation_shapes
from segformer.checkpoints.conversion import convert
from segformer.checkpoints.model_folder import read_weights
from transformers_parity import relative_difference

BIAS = "decode_head.linear_fuse.conv.bias"


@pytest.fixture
def state() -> dict[str, Tensor]:
    """The authors' keys, without conv_seg, and a bias on the fusion."""
    shapes = {name: shape for name, shape in segmentation_shapes().items() if "conv_seg" not in name}
    return filled(shapes | {BIAS: (256,)})


@pytest.fixture
def path(state: dict[str, Tensor], tmp_path: Path) -> Path:
    torch.save({"state_dict": state}, tmp_path / "tao.pth")
    return tmp_path / "tao.pth"


def test_the_bias_folds_into_the_norm(path: Path, state: dict[str, Tensor]) -> None:
    images = torch.randn(1, 3, 64, 96)
    without = {name: tensor for name, tensor in state.items() if name != BIAS}
    assert relative_difference(reference(without, images), reference(state, images)) > 1e-3  # it matters
    model = segformer.load(path)
    assert_computes(model, state)
    assert (model.card.model.norm_eps, model.card.model.embed_norm_eps) == (1e-6, 1e-5)
    assert model.card.provenance["layout"] == "NVIDIA TAO"
    (note,) = read_weights(path).notes
    assert "bias" in note
    assert "same function" in note


def test_a_bias_of_another_shape_names_the_tensor(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state | {BIAS: torch.zeros(7)}, tmp_path / "wrong.pth")
    with pytest.raises(ValueError, match=r"wrong\.pth: .*linear_fuse\.conv\.bias.*\(256,\).*\(7,\)"):
        segformer.load(tmp_path / "wrong.pth")


def test_a_norm_that_is_missing_names_the_tensor(state: dict[str, Tensor], tmp_path: Path) -> None:
    del state["decode_head.linear_fuse.bn.running_mean"]
    torch.save(state, tmp_path / "wrong.pth")
    with pytest.raises(ValueError, match=r"wrong\.pth: .*linear_fuse\.bn\.running_mean.* is missing"):
        segformer.load(tmp_path / "wrong.pth")


def test_conv_seg_and_meta_are_treated_as_in_the_authors_files(state: dict[str, Tensor], tmp_path: Path) -> None:
    meta = {"CLASSES": CLASSES, "PALETTE": PALETTE}
    both = filled(segmentation_shapes()) | state
    torch.save({"meta": meta, "state_dict": both}, tmp_path / "tao.pth")
    model = segformer.load(tmp_path / "tao.pth")
    assert model.card.classes == tuple(CLASSES)
    assert_computes(model, state)


@pytest.mark.parametrize("to", ["segformer", "nvlabs", "smp"])
def test_written_as_another_layout_it_is_the_same_function(
    to: str, path: Path, state: dict[str, Tensor], tmp_path: Path
) -> None:
    notes = convert(path, tmp_path / "there", to)
    assert "same function" in notes[0]
    assert_computes(segformer.load(tmp_path / "there"), state)

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import segformer
from checkpoints.formats.test_nvlabs import assert_computes, filled, segformer_decoder, segmentation_shapes, with_bias
from segformer.checkpoints.conversion import convert
from segformer.checkpoints.model_folder import read_weights
from transformers_parity import relative_difference

CHANNELS, HEADS, REDUCTIONS = (32, 64, 160, 256), (1, 2, 5, 8), (8, 4, 2, 1)


def encoder_shapes() -> dict[str, tuple[int, ...]]:
    """Keys of mmsegmentation's MixVisionTransformer of the size of MiT-B0."""
    shapes: dict[str, tuple[int, ...]] = {}
    before = 3
    for i, (c, reduction) in enumerate(zip(CHANNELS, REDUCTIONS, strict=True)):
        kernel = 7 if i == 0 else 3
        shapes |= with_bias(f"layers.{i}.0.projection", c, before, kernel, kernel) | with_bias(f"layers.{i}.0.norm", c)
        for block in (f"layers.{i}.1.0", f"layers.{i}.1.1"):
            shapes |= with_bias(f"{block}.norm1", c) | with_bias(f"{block}.norm2", c)
            shapes[f"{block}.attn.attn.in_proj_weight"] = (3 * c, c)
            shapes[f"{block}.attn.attn.in_proj_bias"] = (3 * c,)
            shapes |= with_bias(f"{block}.attn.attn.out_proj", c, c)
            if reduction > 1:
                shapes |= with_bias(f"{block}.attn.sr", c, c, reduction, reduction)
                shapes |= with_bias(f"{block}.attn.norm", c)
            shapes |= with_bias(f"{block}.ffn.layers.0", 4 * c, c, 1, 1)
            shapes |= with_bias(f"{block}.ffn.layers.1", 4 * c, 1, 3, 3)
            shapes |= with_bias(f"{block}.ffn.layers.4", c, 4 * c, 1, 1)
        shapes |= with_bias(f"layers.{i}.2", c)
        before = c
    return shapes


def head_shapes() -> dict[str, tuple[int, ...]]:
    """Keys of mmsegmentation's own SegformerHead: a convolution and a norm a stage."""
    shapes = with_bias("decode_head.conv_seg", 19, 256, 1, 1)
    convolutions = {f"convs.{i}": c for i, c in enumerate(CHANNELS)} | {"fusion_conv": 1024}
    for name, c in convolutions.items():
        shapes[f"decode_head.{name}.conv.weight"] = (256, c, 1, 1)
        for statistic in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"decode_head.{name}.bn.{statistic}"] = (256,)
        shapes[f"decode_head.{name}.bn.num_batches_tracked"] = ()
    return shapes


def as_nvlabs(encoder: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same encoder under the authors' names, one assignment after the other."""
    state: dict[str, Tensor] = {}
    for i, c in enumerate(CHANNELS):
        for s in ("weight", "bias"):
            state[f"backbone.patch_embed{i + 1}.proj.{s}"] = encoder[f"layers.{i}.0.projection.{s}"]
            state[f"backbone.patch_embed{i + 1}.norm.{s}"] = encoder[f"layers.{i}.0.norm.{s}"]
            state[f"backbone.norm{i + 1}.{s}"] = encoder[f"layers.{i}.2.{s}"]
            for j in range(2):
                theirs, nv = f"layers.{i}.1.{j}", f"backbone.block{i + 1}.{j}"
                in_proj = encoder[f"{theirs}.attn.attn.in_proj_{s}"]
                state[f"{nv}.attn.q.{s}"] = in_proj[:c]
                state[f"{nv}.attn.kv.{s}"] = in_proj[c:]
                state[f"{nv}.attn.proj.{s}"] = encoder[f"{theirs}.attn.attn.out_proj.{s}"]
                for name in ("norm1", "norm2", "attn.sr", "attn.norm"):
                    if f"{theirs}.{name}.{s}" in encoder:
                        state[f"{nv}.{name}.{s}"] = encoder[f"{theirs}.{name}.{s}"]
                for name, number in (("fc1", 0), ("dwconv.dwconv", 1), ("fc2", 4)):
                    tensor = encoder[f"{theirs}.ffn.layers.{number}.{s}"]
                    state[f"{nv}.mlp.{name}.{s}"] = tensor.flatten(1) if "fc" in name and s == "weight" else tensor
    return state


@pytest.fixture(scope="module")
def encoder() -> dict[str, Tensor]:
    return filled(encoder_shapes())


@pytest.fixture
def bare(encoder: dict[str, Tensor], tmp_path: Path) -> Path:
    torch.save(encoder, tmp_path / "mit_b0_mmseg.pth")
    return tmp_path / "mit_b0_mmseg.pth"


@pytest.fixture
def whole(encoder: dict[str, Tensor], tmp_path: Path) -> Path:
    state = {f"backbone.{name}": tensor for name, tensor in encoder.items()} | filled(head_shapes())
    torch.save({"meta": {"mmseg_version": "1.0"}, "state_dict": state}, tmp_path / "mmseg.pth")
    return tmp_path / "mmseg.pth"


@pytest.mark.parametrize("kind", ["bare", "whole"])
def test_the_encoder_computes_the_same(kind: str, encoder: dict[str, Tensor], request: pytest.FixtureRequest) -> None:
    model: Any = segformer.load(request.getfixturevalue(kind), num_classes=3)
    head = filled(segmentation_shapes())
    model.decoder.load_state_dict(segformer_decoder(head))
    assert (model.card.model.norm_eps, model.card.model.embed_norm_eps) == (1e-6, 1e-6)
    assert_computes(model, head | as_nvlabs(encoder), eps=1e-6, embed_eps=1e-6)


@torch.inference_mode()
def test_in_proj_is_that_of_torchs_attention(bare: Path, encoder: dict[str, Tensor]) -> None:
    """mmsegmentation hands its tensors to torch's own layer."""
    ours: Any = segformer.load(bare, num_classes=2)
    for stage, c in ((1, 64), (3, 256)):
        prefix = f"layers.{stage}.1.1.attn."
        theirs = nn.MultiheadAttention(c, HEADS[stage], batch_first=True).eval()
        theirs.load_state_dict({name: encoder[f"{prefix}attn.{name}"] for name in theirs.state_dict()})
        tokens = torch.randn(1, 64, c)
        reduced = tokens
        if stage == 1:
            sr = nn.functional.conv2d(
                tokens.mT.reshape(1, c, 8, 8), encoder[f"{prefix}sr.weight"], encoder[f"{prefix}sr.bias"], stride=4
            )
            weights = encoder[f"{prefix}norm.weight"], encoder[f"{prefix}norm.bias"]
            reduced = nn.functional.layer_norm(sr.flatten(2).mT, (c,), *weights, 1e-6)
        expected, _ = theirs(tokens, reduced, reduced)
        got = ours.encoder.stages[stage].blocks[1].attention(tokens, (8, 8))
        assert relative_difference(got, expected) < 1e-5


def test_a_decoder_of_theirs_is_refused_with_the_reason(whole: Path, tmp_path: Path) -> None:
    (note,) = read_weights(whole).notes
    assert "decode_head.convs.0.conv.weight" in note
    assert "different function" in note
    with pytest.raises(ValueError, match=r"mmseg\.pth.*different function"):
        segformer.load(whole)
    with pytest.raises(ValueError, match=r"mmseg\.pth.*different function"):
        convert(whole, tmp_path / "there", "nvlabs")
    assert not (tmp_path / "there").exists()


def test_a_bare_encoder_is_refused_as_a_model(bare: Path) -> None:
    with pytest.raises(ValueError, match=r"mit_b0_mmseg\.pth contains only an encoder, .*num_classes="):
        segformer.load(bare)
    assert read_weights(bare).notes == ()


@pytest.mark.parametrize("key", ["in_proj_weight", "in_proj_bias"])
def test_an_in_proj_of_another_height_names_the_tensor(encoder: dict[str, Tensor], key: str, tmp_path: Path) -> None:
    name = f"layers.2.1.0.attn.attn.{key}"
    torch.save(encoder | {name: encoder[name][:-1]}, tmp_path / "wrong.pth")
    with pytest.raises(ValueError, match=rf"wrong\.pth: tensor '{name}' must .*480.*got \(479"):
        segformer.load(tmp_path / "wrong.pth", num_classes=2)

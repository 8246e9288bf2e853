"""The authors' checkpoints, spelled out here key by key, and computed here line by line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import segformer
from segformer.checkpoints.conversion import convert
from segformer.checkpoints.model_folder import read_weights
from transformers_parity import relative_difference

CHANNELS, HEADS, REDUCTIONS = (32, 64, 160, 256), (1, 2, 5, 8), (8, 4, 2, 1)  # of MiT-B0, with two blocks a stage
CLASSES, PALETTE = ["paved  area", "dirt", "roof"], [[128, 64, 128], [130, 76, 0], [70, 70, 70]]


def with_bias(name: str, *weight: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": weight, f"{name}.bias": weight[:1]}


def encoder_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    before = 3
    for i, (c, reduction) in enumerate(zip(CHANNELS, REDUCTIONS, strict=True), start=1):
        kernel = 7 if i == 1 else 3
        shapes |= with_bias(f"patch_embed{i}.proj", c, before, kernel, kernel) | with_bias(f"patch_embed{i}.norm", c)
        for block in (f"block{i}.0", f"block{i}.1"):
            shapes |= with_bias(f"{block}.norm1", c) | with_bias(f"{block}.norm2", c)
            shapes |= with_bias(f"{block}.attn.q", c, c) | with_bias(f"{block}.attn.kv", 2 * c, c)
            shapes |= with_bias(f"{block}.attn.proj", c, c)
            if reduction > 1:
                shapes |= with_bias(f"{block}.attn.sr", c, c, reduction, reduction)
                shapes |= with_bias(f"{block}.attn.norm", c)
            shapes |= with_bias(f"{block}.mlp.fc1", 4 * c, c) | with_bias(f"{block}.mlp.dwconv.dwconv", 4 * c, 1, 3, 3)
            shapes |= with_bias(f"{block}.mlp.fc2", c, 4 * c)
        shapes |= with_bias(f"norm{i}", c)
        before = c
    return shapes


def segmentation_shapes(num_classes: int = 3) -> dict[str, tuple[int, ...]]:
    shapes = {f"backbone.{name}": shape for name, shape in encoder_shapes().items()}
    shapes |= with_bias("decode_head.conv_seg", num_classes, 128, 1, 1)
    for i, c in enumerate(CHANNELS, start=1):
        shapes |= with_bias(f"decode_head.linear_c{i}.proj", 256, c)
    shapes["decode_head.linear_fuse.conv.weight"] = (256, 1024, 1, 1)
    for name in ("weight", "bias", "running_mean", "running_var"):
        shapes[f"decode_head.linear_fuse.bn.{name}"] = (256,)
    shapes["decode_head.linear_fuse.bn.num_batches_tracked"] = ()
    return shapes | with_bias("decode_head.linear_pred", num_classes, 256, 1, 1)


def filled(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Random tensors that keep signals at a normal size, and the statistics of a norm possible."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in shapes.items():
        if shape == ():
            state[name] = torch.tensor(160_000)
        elif name.endswith("running_var"):
            state[name] = torch.rand(shape, generator=generator) + 0.5
        elif len(shape) > 1:
            state[name] = torch.randn(shape, generator=generator) * torch.Size(shape[1:]).numel() ** -0.5
        else:
            center = float("norm" in name and name.endswith(".weight"))
            state[name] = center + 0.2 * torch.randn(shape, generator=generator)
    return state


def reference(state: Mapping[str, Tensor], images: Tensor, eps: float = 1e-6, embed_eps: float = 1e-5) -> Tensor:
    """Logits of a checkpoint, as the authors' code computes them: Equations 1 to 4."""

    def of(name: str) -> tuple[Tensor, Tensor]:
        return state[f"{name}.weight"], state[f"{name}.bias"]

    def norm(x: Tensor, name: str, eps: float) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], *of(name), eps)

    def attend(x: Tensor, block: str, heads: int, reduction: int, size: tuple[int, int]) -> Tensor:
        query, reduced = F.linear(x, *of(f"{block}.q")), x
        if reduction > 1:
            grid = x.transpose(1, 2).reshape(1, -1, *size)
            reduced = F.conv2d(grid, *of(f"{block}.sr"), stride=reduction).flatten(2).transpose(1, 2)
            reduced = norm(reduced, f"{block}.norm", embed_eps)
        kv = F.linear(reduced, *of(f"{block}.kv")).reshape(1, -1, 2, heads, x.shape[2] // heads)
        key, value = kv.permute(2, 0, 3, 1, 4)
        query = query.reshape(1, -1, heads, x.shape[2] // heads).transpose(1, 2)
        weights = (query @ key.transpose(-2, -1) * key.shape[-1] ** -0.5).softmax(dim=-1)
        return F.linear((weights @ value).transpose(1, 2).flatten(2), *of(f"{block}.proj"))

    def mix(x: Tensor, block: str, size: tuple[int, int]) -> Tensor:
        hidden = F.linear(x, *of(f"{block}.fc1")).transpose(1, 2).reshape(1, -1, *size)
        hidden = F.conv2d(hidden, *of(f"{block}.dwconv.dwconv"), padding=1, groups=hidden.shape[1])
        return F.linear(F.gelu(hidden).flatten(2).transpose(1, 2), *of(f"{block}.fc2"))

    projected, x = [], images
    for i in range(1, 5):
        stem = f"backbone.patch_embed{i}"
        x = F.conv2d(x, *of(f"{stem}.proj"), stride=4 if i == 1 else 2, padding=3 if i == 1 else 1)
        size = (x.shape[2], x.shape[3])
        x = norm(x.flatten(2).transpose(1, 2), f"{stem}.norm", embed_eps)
        for block in (f"backbone.block{i}.0", f"backbone.block{i}.1"):
            x = x + attend(norm(x, f"{block}.norm1", eps), f"{block}.attn", HEADS[i - 1], REDUCTIONS[i - 1], size)
            x = x + mix(norm(x, f"{block}.norm2", eps), f"{block}.mlp", size)
        x = norm(x, f"backbone.norm{i}", eps)
        linear = F.linear(x, *of(f"decode_head.linear_c{i}.proj")).transpose(1, 2).reshape(1, -1, *size)
        x = x.transpose(1, 2).reshape(1, -1, *size)
        projected.append(F.interpolate(linear, (images.shape[2] // 4, images.shape[3] // 4), mode="bilinear"))
    head = "decode_head.linear_fuse"
    fused = F.conv2d(torch.cat(projected[::-1], 1), state[f"{head}.conv.weight"], state.get(f"{head}.conv.bias"))
    statistics = state[f"{head}.bn.running_mean"], state[f"{head}.bn.running_var"]
    return F.conv2d(F.relu(F.batch_norm(fused, *statistics, *of(f"{head}.bn"))), *of("decode_head.linear_pred"))


@torch.inference_mode()
def assert_computes(model: torch.nn.Module, state: Mapping[str, Tensor], **eps: float) -> None:
    images = torch.randn(1, 3, 64, 96)
    assert relative_difference(model(images), reference(state, images, **eps)) < 1e-5


@pytest.fixture
def state() -> dict[str, Tensor]:
    return filled(segmentation_shapes())


@pytest.fixture
def path(state: dict[str, Tensor], tmp_path: Path) -> Path:
    meta = {"config": "norm_cfg = dict(type='SyncBN')", "CLASSES": CLASSES, "PALETTE": PALETTE, "epoch": 1}
    torch.save({"meta": meta, "state_dict": state}, tmp_path / "segformer.b0.pth")
    return tmp_path / "segformer.b0.pth"


def test_the_fixture_has_the_released_number_of_parameters() -> None:
    shapes = encoder_shapes()
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == 3_319_392
    counted = {
        name: shape
        for name, shape in segmentation_shapes(150).items()
        if "conv_seg" not in name and "running" not in name and shape != ()
    }
    assert sum(torch.Size(shape).numel() for shape in counted.values()) == 3_752_694


def test_logits_are_those_of_the_authors_equations(path: Path, state: dict[str, Tensor]) -> None:
    model = segformer.load(path)
    config = model.card.model
    assert (config.encoder, config.norm_eps, config.embed_norm_eps) == ("mit_b0", 1e-6, 1e-5)
    assert not config.align_corners
    assert_computes(model, state)


def test_values_land_where_they_belong(path: Path, state: dict[str, Tensor]) -> None:
    model: Any = segformer.load(path)
    key_value = state["backbone.block3.1.attn.kv.weight"]
    attention = model.encoder.stages[2].blocks[1].attention
    assert torch.equal(attention.key_value.weight[:160], key_value[:160])  # k
    assert torch.equal(attention.key_value.weight[160:], key_value[160:])  # v
    for i in range(4):
        assert torch.equal(model.decoder.projections[i].weight, state[f"decode_head.linear_c{i + 1}.proj.weight"])
    assert torch.equal(model.decoder.fuse.weight, state["decode_head.linear_fuse.conv.weight"][:, :, 0, 0])
    assert torch.equal(model.decoder.norm.running_var, state["decode_head.linear_fuse.bn.running_var"])
    assert model.decoder.norm.num_batches_tracked == 160_000


def test_meta_and_what_is_left_out(path: Path) -> None:
    weights = read_weights(path)
    assert weights.card is not None
    assert weights.card.classes == tuple(CLASSES)
    assert weights.card.palette == tuple(map(tuple, PALETTE))
    (note,) = weights.notes
    assert "decode_head.conv_seg.weight" in note
    assert "never used" in note


@pytest.mark.parametrize("meta", [None, {"CLASSES": CLASSES[:2], "PALETTE": PALETTE[:2]}, {"CLASSES": "abc"}, [], 3])
def test_a_meta_that_does_not_fit_is_not_used(state: dict[str, Tensor], tmp_path: Path, meta: Any) -> None:
    torch.save({"meta": meta, "state_dict": state}, tmp_path / "model.pth")
    card = segformer.load(tmp_path / "model.pth").card
    assert card.classes == ("class_0", "class_1", "class_2")
    assert len(set(card.palette)) == 3


@pytest.mark.parametrize("wrap", [dict, lambda state: {"state_dict": state}, lambda state: {"model": state}])
def test_wrapped_or_not(state: dict[str, Tensor], tmp_path: Path, wrap: Any) -> None:
    torch.save(wrap({f"module.{name}": tensor for name, tensor in state.items()}), tmp_path / "model.pth")
    assert_computes(segformer.load(tmp_path / "model.pth"), state)


def test_the_encoder_alone(tmp_path: Path, state: dict[str, Tensor]) -> None:
    shapes = encoder_shapes() | with_bias("head", 1000, 256)
    encoder = filled(shapes)
    torch.save(encoder, tmp_path / "mit_b0.pth")
    with pytest.raises(ValueError, match=r"mit_b0\.pth contains only an encoder, .*num_classes="):
        segformer.load(tmp_path / "mit_b0.pth")
    (note,) = read_weights(tmp_path / "mit_b0.pth").notes
    assert "head.weight" in note
    model: Any = segformer.load(tmp_path / "mit_b0.pth", num_classes=3)
    both = state | {f"backbone.{name}": tensor for name, tensor in encoder.items()}
    model.decoder.load_state_dict(segformer_decoder(state))
    assert_computes(model, both)
    assert (model.card.model.norm_eps, model.card.model.embed_norm_eps) == (1e-6, 1e-5)


def segformer_decoder(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    names = {"linear_fuse.conv.": "fuse.", "linear_fuse.bn.": "norm.", "linear_pred.": "classifier."}
    names |= {f"linear_c{i + 1}.proj.": f"projections.{i}." for i in range(4)}
    decoder = {
        ours + name.removeprefix("decode_head." + theirs): tensor
        for name, tensor in state.items()
        for theirs, ours in names.items()
        if name.startswith("decode_head." + theirs)
    }
    return decoder | {"fuse.weight": decoder["fuse.weight"][:, :, 0, 0]}


def test_written_with_exactly_the_keys_of_the_release(path: Path, state: dict[str, Tensor], tmp_path: Path) -> None:
    left_out, preprocessing = convert(path, tmp_path / "back", "nvlabs")
    assert "conv_seg" in left_out
    assert "holds no preprocessing" in preprocessing
    (file,) = (tmp_path / "back").iterdir()
    written = torch.load(file, weights_only=True)
    assert written["meta"]["CLASSES"] == CLASSES
    assert written["meta"]["PALETTE"] == PALETTE
    assert {name: tuple(tensor.shape) for name, tensor in written["state_dict"].items()} == segmentation_shapes()
    for name, tensor in written["state_dict"].items():
        assert tensor.is_contiguous()
        assert tensor.dtype == state[name].dtype
        assert torch.equal(tensor, torch.zeros_like(tensor) if "conv_seg" in name else state[name]), name
    assert_computes(segformer.load(tmp_path / "back"), state)

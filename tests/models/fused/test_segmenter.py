"""The inference form as a Network: what prediction asks of it, in every precision."""

import pytest
import torch
from torch import nn

from models.small_parts import SmallEncoder, add_rows
from segformer.inference.predictor import Predictor
from segformer.models.build import build_model
from segformer.models.fused.all_mlp import FusedAllMLPDecoder
from segformer.models.fused.segmenter import MAX_COMPILED, FusedSegmenter, fused_form
from segformer.models.segmenter import Segmenter
from transformers_parity import randomize, relative_difference


@pytest.fixture(scope="module")
def model() -> Segmenter:
    torch.manual_seed(0)
    model = build_model("mit_b0", num_classes=5, decoder_channels=32)
    randomize(model.encoder)
    randomize(model.decoder)
    return model.eval()


def test_a_predictor_takes_it(model: Segmenter) -> None:
    pixels = torch.randint(0, 256, (70, 90, 3), dtype=torch.uint8).numpy()
    fused, trainable = Predictor(model.fuse())(pixels), Predictor(model)(pixels)
    assert fused.mask.shape == (70, 90)
    assert (fused.mask == trainable.mask).mean() > 0.999
    assert fused.classes == model.card.classes


@torch.inference_mode()
def test_raw_pixels_in_any_order_of_memory(model: Segmenter) -> None:
    fused = model.fuse()
    assert fused.device == model.device
    assert fused.card is model.card
    planar = torch.randint(0, 256, (2, 3, 40, 50), dtype=torch.uint8)
    for pixels in (planar, planar.contiguous(memory_format=torch.channels_last), planar.float()):
        normalized = fused.normalize(pixels)
        torch.testing.assert_close(normalized, model.normalize(pixels))
        assert relative_difference(fused(normalized), model(normalized)) < 1e-5
    assert (fused.predict_mask(planar) == model.predict_mask(planar)).float().mean() > 0.999
    assert fused.predict_mask(planar, size=(20, 30)).shape == (2, 20, 30)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_another_precision_copies_the_weights(model: Segmenter, dtype: torch.dtype) -> None:
    fused = model.fuse(dtype)
    assert {p.dtype for p in fused.parameters()} == {dtype}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    pixels = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    assert fused.normalize(pixels).dtype == torch.float32
    logits = fused(fused.normalize(pixels))
    assert logits.dtype == dtype
    assert relative_difference(logits.float(), model(model.normalize(pixels))) < 0.1


def test_the_parameters_are_shared(model: Segmenter) -> None:
    fused = model.fuse()
    ours = {id(p) for p in fused.encoder.parameters()}
    assert ours == {id(p) for p in model.encoder.parameters()}
    assert not fused.training
    assert isinstance(fused.decoder, FusedAllMLPDecoder)


def test_a_type_without_a_fused_form_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    add_rows(monkeypatch)
    model = build_model("small", "small", num_classes=3).train()
    form = fused_form(model.encoder)
    assert type(form) is SmallEncoder
    assert not form.training
    assert model.encoder.training


def test_only_the_first_shapes_are_compiled(model: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[torch.Size] = []

    def compile_(function: nn.Module, **_: object) -> object:
        return lambda images: compiled.append(images.shape) or function(images)  # type: ignore[func-returns-value]

    monkeypatch.setattr(torch, "compile", compile_)
    fused = model.fuse(compile=True)
    assert isinstance(fused, FusedSegmenter)
    with torch.inference_mode():
        for width in (*range(32, 32 + MAX_COMPILED + 2), 32):
            fused(torch.zeros(1, 3, 32, width))
    assert [shape[3] for shape in compiled] == [*range(32, 32 + MAX_COMPILED), 32]

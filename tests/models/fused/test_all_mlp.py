import pytest
import torch

from models.decoders.test_all_mlp import decoder_and_maps
from segformer.models.fused import all_mlp
from segformer.models.fused.all_mlp import FusedAllMLPDecoder
from transformers_parity import relative_difference


@pytest.mark.parametrize("size", [(16, 24), (17, 9), (8, 8)])
@pytest.mark.parametrize("channels", [16, 256])
def test_equal_to_the_literal_form(size: tuple[int, int], channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, maps = decoder_and_maps(size, channels)
    decoder.eval()
    fused = FusedAllMLPDecoder(decoder)
    expected = decoder.literal()(maps)
    assert relative_difference(fused(maps), expected) < 1e-5
    assert relative_difference(fused.classifier(fused.features(maps)), expected) < 1e-5
    for band in (1, 20_000, 1 << 30):
        monkeypatch.setattr(all_mlp, "BAND", band)
        with torch.no_grad():
            assert relative_difference(fused(maps), expected) < 1e-5


def test_the_classifier_is_shared_and_the_rest_is_merged() -> None:
    decoder, _ = decoder_and_maps((8, 8))
    fused = FusedAllMLPDecoder(decoder)
    assert fused.classifier.weight is decoder.classifier.weight
    assert {name.split(".")[0] for name, _ in fused.named_parameters()} == {"weights", "bias", "classifier"}


def test_the_logits_of_a_pixel_are_neighbors_in_memory() -> None:
    decoder, maps = decoder_and_maps((8, 8))
    with torch.inference_mode():
        assert FusedAllMLPDecoder(decoder)(maps).is_contiguous(memory_format=torch.channels_last)

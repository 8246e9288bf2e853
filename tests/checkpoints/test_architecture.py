import pytest
import torch

from segformer.checkpoints.architecture import expected_state, read_architecture
from segformer.checkpoints.formats.nvlabs import ENCODER, SEGMENTATION
from segformer.checkpoints.formats.transformers import SEGMENTATION as TRANSFORMERS
from segformer.checkpoints.key_table import State, write
from segformer.errors import UserError
from segformer.models.build import model_config
from segformer.published import MIT_SIZES


def theirs(encoder: str = "mit_b0", num_classes: int = 7, **options: int) -> State:
    """Tensors without memory under the names of the authors."""
    return write(SEGMENTATION, expected_state(model_config(encoder, **options), num_classes))


@pytest.mark.parametrize("encoder", MIT_SIZES)
def test_sizes_are_told_apart(encoder: str) -> None:
    config, num_classes = read_architecture(SEGMENTATION, theirs(encoder, 19, in_channels=5, decoder_channels=64))
    assert (config.encoder, config.in_channels, config.decoder_channels, num_classes) == (encoder, 5, 64, 19)
    assert (config.norm_eps, config.embed_norm_eps, config.align_corners) == (1e-6, 1e-5, False)


def test_an_encoder_alone_has_no_classes_and_the_default_decoder() -> None:
    state = {k.removeprefix("backbone."): t for k, t in theirs("mit_b2").items() if k.startswith("backbone.")}
    config, num_classes = read_architecture(ENCODER, state)
    assert (config.encoder, config.decoder_channels, num_classes) == ("mit_b2", 768, 0)


def test_the_constants_are_those_of_the_table() -> None:
    state = write(TRANSFORMERS, expected_state(model_config("mit_b0"), 3))
    config, _ = read_architecture(TRANSFORMERS, state)
    assert (config.norm_eps, config.embed_norm_eps) == (1e-5, 1e-5)


def test_expected_tensors_take_no_memory() -> None:
    state = expected_state(model_config("mit_b5"), 150)
    assert all(tensor.is_meta for tensor in state.values())
    assert state["decoder.classifier.weight"].shape == (150, 768, 1, 1)


STEM = "backbone.patch_embed1.proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({STEM: torch.empty(32, 3, 4, 4)}, "kernels of the patch embeddings must be"),
        ({STEM: torch.empty(48, 3, 7, 7)}, r"match one of MiT-B0 ... B5, got channels \(48, 64, 160, 256\)"),
        ({STEM: torch.empty(())}, rf"tensor '{STEM}' must have 2 or 4 dimensions, got shape \(\)"),
        ({"decode_head.linear_c1.proj.weight": torch.empty(3)}, "must have 2 or 4 dimensions"),
    ],
)
def test_other_architectures_are_refused(change: State, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_architecture(SEGMENTATION, {**theirs(), **change})

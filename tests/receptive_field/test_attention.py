import pytest
import torch

from segformer.models.build import build_model
from segformer.models.encoders.mit import EfficientSelfAttention, MiTSize, MixTransformer
from segformer.models.interfaces import Encoder
from segformer.receptive_field.attention import attention_maps, attention_weights, layer_attention

SIZE = (8, 12)


def layer(reduction: int, heads: int = 2) -> EfficientSelfAttention:
    torch.manual_seed(reduction)
    made = EfficientSelfAttention(16, heads, reduction, 1e-5).double().eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made


@pytest.mark.parametrize("reduction", [1, 2, 4])
def test_the_weights_reproduce_the_layers_output(reduction: int) -> None:
    """Applied to the values, which are the second half of the layer's own projection, and projected."""
    made, tokens = layer(reduction), torch.randn(2, 96, 16, dtype=torch.float64)
    seen = {}
    made.key_value.register_forward_hook(lambda _, inputs, output: seen.update(value=output[..., 16:]))
    expected = made(tokens, SIZE)
    weights = attention_weights(made, tokens, SIZE, range(96))
    assert weights.shape == (2, 2, 96, 96 // reduction**2)
    torch.testing.assert_close(weights.sum(dim=3), torch.ones(2, 2, 96, dtype=torch.float64))
    value = seen["value"].view(2, -1, 2, 8)
    attended = torch.einsum("bhnm,bmhd->bnhd", weights, value).flatten(2)
    torch.testing.assert_close(made.output(attended), expected)


def test_one_query_and_the_mean_over_all() -> None:
    made, tokens = layer(2), torch.randn(1, 96, 16, dtype=torch.float64)
    weights = attention_weights(made, tokens, SIZE, range(96))[0]
    one = layer_attention(made, tokens, SIZE, (3, 5))
    assert one.shape == (2, 4, 6)
    torch.testing.assert_close(one.flatten(1), weights[:, 3 * 12 + 5])
    torch.testing.assert_close(layer_attention(made, tokens, SIZE, None).flatten(1), weights.mean(dim=1))


def test_the_mean_over_many_queries_is_taken_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    made, tokens = layer(1), torch.randn(1, 96, 16, dtype=torch.float64)
    whole = layer_attention(made, tokens, SIZE, None)
    monkeypatch.setattr("segformer.receptive_field.attention.BAND", 36)
    torch.testing.assert_close(layer_attention(made, tokens, SIZE, None), whole)


def test_every_block_and_head_of_an_encoder() -> None:
    encoder = MixTransformer(MiTSize(channels=(8, 16, 20, 32), depths=(1, 2, 1, 3), decoder_channels=8)).eval()
    image = torch.randn(1, 3, 64, 128)
    before = encoder(image)[-1]
    found = attention_maps(encoder, image, (32, 64))
    places = [(block.stage, block.block) for block in found]
    assert places == [(1, 1), (2, 1), (2, 2), (3, 1), (4, 1), (4, 2), (4, 3)]
    shapes = {block.stage: tuple(block.weights.shape) for block in found}
    assert shapes == {1: (1, 2, 4), 2: (2, 2, 4), 3: (5, 2, 4), 4: (8, 2, 4)}
    for block in (*found, *attention_maps(encoder, image)):
        torch.testing.assert_close(block.weights.sum(dim=(1, 2)), torch.ones(len(block.weights)))
    torch.testing.assert_close(encoder(image)[-1], before)
    assert not any(module._forward_hooks for module in encoder.modules())


def test_a_fused_encoder_attends_as_the_encoder_does() -> None:
    torch.manual_seed(0)
    model = build_model("mit_b0", num_classes=3).eval()
    image = torch.randn(1, 3, 64, 96)
    expected = attention_maps(model.encoder, image)
    found = attention_maps(model.fuse().encoder, image)
    assert [(block.stage, block.block) for block in found] == [(block.stage, block.block) for block in expected]
    for block, other in zip(found, expected, strict=True):
        torch.testing.assert_close(block.weights, other.weights)


def test_an_encoder_without_attention_gives_none() -> None:
    assert attention_maps(Encoder(), torch.zeros(1, 3, 64, 64)) == []


def test_the_query_is_the_one_over_the_pixel() -> None:
    encoder = MixTransformer(MiTSize(channels=(8, 16, 20, 32), depths=(1, 1, 1, 1), decoder_channels=8)).eval()
    image, seen = torch.randn(1, 3, 64, 128), {}
    attention = encoder.stages[3].blocks[0].attention
    attention.register_forward_hook(lambda layer, inputs, _: seen.update(tokens=inputs[0], size=inputs[1]))
    last = attention_maps(encoder, image, (40, 100))[-1].weights
    with torch.no_grad():
        expected = attention_weights(attention, seen["tokens"], seen["size"], [1 * 4 + 3])[0, :, 0]
    torch.testing.assert_close(last.flatten(1), expected)
    with pytest.raises(ValueError, match=r"position must be inside the image of 64 x 128, got \(64, 0\)"):
        attention_maps(encoder, image, (64, 0))

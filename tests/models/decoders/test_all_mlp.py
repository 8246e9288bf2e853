import pytest
import torch
from torch import nn

from segformer.models.decoders.all_mlp import AllMLPDecoder
from segformer.ops.upsample_cross_entropy import upsample_cross_entropy
from transformers_parity import relative_difference

CHANNELS = (32, 64, 160, 256)


def decoder_and_maps(size: tuple[int, int], channels: int = 48) -> tuple[AllMLPDecoder, list[torch.Tensor]]:
    torch.manual_seed(0)
    decoder = AllMLPDecoder(CHANNELS, 7, channels=channels, dropout=0.0)
    for parameter in decoder.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    decoder.norm.running_mean.normal_()
    decoder.norm.running_var.uniform_(0.5, 2.0)
    maps = [torch.randn(2, c, -(-size[0] // 2**i), -(-size[1] // 2**i)) for i, c in enumerate(CHANNELS)]
    return decoder, maps


@pytest.mark.parametrize("size", [(16, 24), (17, 9), (8, 8)])
@pytest.mark.parametrize("channels", [16, 256])
def test_rewritten_equals_literal(size: tuple[int, int], channels: int) -> None:
    decoder, maps = decoder_and_maps(size, channels)
    decoder.eval()
    assert relative_difference(decoder(maps), decoder.literal()(maps)) < 1e-5


def test_other_classes() -> None:
    decoder, maps = decoder_and_maps((8, 8))
    before = decoder.fuse.weight.clone()
    decoder.reset_classes(11)
    assert decoder(maps).shape == (2, 11, 8, 8)
    assert torch.equal(decoder.fuse.weight, before)


def test_any_number_of_maps_at_any_stride() -> None:
    decoder = AllMLPDecoder((8, 12), 3, channels=16).eval()
    maps = [torch.randn(1, 8, 20, 15), torch.randn(1, 12, 3, 2)]
    assert decoder(maps).shape == (1, 3, 20, 15)
    assert relative_difference(decoder(maps), decoder.literal()(maps)) < 1e-5


def test_a_training_step_gives_the_loss_and_gradients_of_the_literal_form() -> None:
    decoder, maps = decoder_and_maps((16, 20))
    target = torch.randint(0, 7, (2, 64, 80))
    results = []
    for form in (decoder.forward, decoder.forward_literal):
        decoder.zero_grad()
        decoder.norm.reset_running_stats()
        inputs = [m.clone().requires_grad_() for m in maps]
        loss = upsample_cross_entropy(form(inputs), target)
        loss.backward()
        gradients = {name: p.grad.clone() for name, p in decoder.named_parameters() if p.grad is not None}
        gradients |= {f"map {i}": m.grad for i, m in enumerate(inputs) if m.grad is not None}
        gradients |= {"running mean": decoder.norm.running_mean.clone()}
        gradients |= {"running variance": decoder.norm.running_var.clone()}
        results.append((loss.detach(), gradients))
    (loss, gradients), (expected, expected_gradients) = results
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    assert len(gradients) == len(list(decoder.parameters())) + 4 + 2
    for name, gradient in gradients.items():
        # Absolute as well: behind a training-mode norm the biases' gradients are zero but for rounding.
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-4, atol=1e-6, msg=name)


def test_the_fusion_is_never_computed_at_full_resolution() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    decoder, maps = decoder_and_maps((64, 64), 256)
    decoder.eval()
    counts = []
    for form in (decoder.forward, decoder.forward_literal):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            form(maps)
        counts.append(counter.get_total_flops())
    assert counts[0] < 0.2 * counts[1]


def test_dropout_drops_whole_channels() -> None:
    decoder = AllMLPDecoder(CHANNELS, 7)
    assert isinstance(decoder.dropout, nn.Dropout2d)
    assert decoder.dropout.p == 0.1

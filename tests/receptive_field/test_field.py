from collections.abc import Callable, Mapping
from functools import reduce

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segformer.errors import UserError
from segformer.models.build import build_model
from segformer.models.decoders.all_mlp import AllMLPDecoder
from segformer.models.encoders.mit import MiTSize, MixTransformer
from segformer.models.segmenter import Segmenter
from segformer.receptive_field.field import ReceptiveField, ReceptiveFields, central_sum, image_fields, receptive_fields
from segformer.receptive_field.probes import SegmenterOutputs, named_maps

TINY = MiTSize(channels=(8, 16, 20, 32), depths=(1, 1, 1, 1), decoder_channels=8)


def ones(kernel: int, stride: int = 1, channels: int = 1, out: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False)
    nn.init.ones_(conv.weight)
    return conv


def of(network: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Mapping[str, Tensor]]:
    return lambda images: {"out": network(images)}


def tiny_model() -> Segmenter:
    torch.manual_seed(0)
    card = build_model("mit_b0", num_classes=2).card
    model = Segmenter(MixTransformer(TINY), AllMLPDecoder(TINY.channels, 2, channels=8), card).double().eval()
    for module in model.modules():
        if isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_a_constant_convolution_sees_its_square_evenly(kernel: int) -> None:
    images = [torch.rand(1, 3, 16, 20) for _ in range(2)]
    fields = receptive_fields(of(ones(kernel, channels=3, out=4)), images)
    expected = np.zeros((16, 20))
    half = kernel // 2
    expected[8 - half : 9 + half, 10 - half : 11 + half] = 3 * 4  # three channels of the input, four of the output
    np.testing.assert_array_equal(fields["out"].map, expected)
    assert (fields.count, fields["out"].stride) == (2, 1)
    assert fields["out"].area(1.0) == kernel * kernel
    assert fields["out"].radius(1.0) == pytest.approx(half * 2**0.5)
    assert fields["out"].outside(kernel) == 0.0


@pytest.mark.parametrize("depth", [2, 4])
def test_stacked_convolutions_give_the_spline(depth: int) -> None:
    field = receptive_fields(of(nn.Sequential(*(ones(3) for _ in range(depth)))), [torch.ones(1, 1, 24, 24)])["out"]
    line = reduce(np.convolve, [np.ones(3)] * depth)
    expected = np.zeros((24, 24))
    expected[12 - depth : 13 + depth, 12 - depth : 13 + depth] = np.outer(line, line)
    np.testing.assert_array_equal(field.map, expected)


def test_strided_convolutions_are_centerd_on_the_central_pixel() -> None:
    field = receptive_fields(of(nn.Sequential(ones(7, 4), ones(3, 2))), [torch.ones(1, 1, 32, 48)])["out"]
    line = reduce(np.convolve, [np.ones(7), [1, 0, 0, 0, 1, 0, 0, 0, 1]])  # the second one's taps are 4 pixels apart
    expected = np.zeros((32, 48))
    expected[16 - 7 : 16 + 8, 24 - 7 : 24 + 8] = np.outer(line, line)
    np.testing.assert_array_equal(field.map, expected)
    assert field.stride == 8


def test_absolute_values_are_averaged_over_images() -> None:
    signed = ones(1)
    fields = receptive_fields(of(lambda x: signed(x) ** 2), [torch.full((1, 1, 8, 8), v) for v in (1.0, -3.0)])
    assert fields["out"].map[4, 4] == (2 + 6) / 2
    assert fields["out"].map.sum() == 4


def test_gradients_equal_finite_differences() -> None:
    outputs = SegmenterOutputs(tiny_model())
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    fields = image_fields(outputs, image)
    assert list(fields) == ["stage 1", "stage 2", "stage 3", "stage 4", "decoder"]
    assert [field.stride for field in fields.values()] == [4, 8, 16, 32, 4]
    step = 1e-5
    for row, column in [(32, 32), (31, 34), (40, 20), (3, 60)]:
        total = dict.fromkeys(fields, 0.0)
        for channel in range(3):
            moved = []
            for sign in (1, -1):
                shifted = image.clone()
                shifted[0, channel, row, column] += sign * step
                with torch.no_grad():
                    moved.append({name: float(central_sum(m)) for name, m in outputs(shifted).items()})
            for name in fields:
                total[name] += abs(moved[0][name] - moved[1][name]) / (2 * step)
        for name, field in fields.items():
            assert field.map[row, column] == pytest.approx(total[name], rel=1e-4, abs=1e-8), (name, row, column)


def test_the_plain_sum_of_a_normed_map_would_be_noise() -> None:
    """Why only what is positive is summed: with equal weights a LayerNorm's outputs sum to a constant."""
    torch.manual_seed(0)
    encoder = MixTransformer(TINY).double().eval()
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    last = encoder(image)[-1]
    (plain,) = torch.autograd.grad(last[0, :, 1, 1].sum(), image)
    field = image_fields(lambda images: named_maps(encoder(images)), image)["stage 4"]
    assert float(plain.abs().sum()) < 1e-9 * field.map.sum()


def test_the_callers_image_keeps_no_gradient() -> None:
    image = torch.ones(1, 1, 8, 8)
    image_fields(of(ones(3)), image)
    assert not image.requires_grad
    assert image.grad is None


def field(values: object) -> ReceptiveField:
    return ReceptiveField(np.asarray(values, dtype=np.float64), 4)


def test_areas_of_a_map_made_by_hand() -> None:
    made = field([[0, 1, 0, 0], [1, 8, 4, 0], [0, 2, 0, 0], [0, 0, 0, 0]])  # 16 in all
    assert [made.area(share) for share in (0.5, 0.51, 0.75, 0.875, 1.0)] == [1, 2, 2, 3, 5]
    assert made.covered(0.875) == 3 / 16
    assert made.side(0.875) == 3**0.5
    flat = field(np.ones((8, 8)))
    assert (flat.area(0.5), flat.area(0.95), flat.area(1.0)) == (32, 61, 64)


def test_distances_of_a_map_made_by_hand() -> None:
    values = np.zeros((8, 8))
    values[4, 4], values[4, 7], values[1, 0] = 2, 1, 1  # 0, 3 and 5 pixels from the central pixel
    made = field(values)
    assert [made.radius(share) for share in (0.5, 0.51, 0.75, 1.0)] == [0, 3, 3, 5]
    np.testing.assert_array_equal(made.within([0, 2.9, 3, 4.9, 5, 100]), [0.5, 0.5, 0.75, 0.75, 1, 1])
    assert made.outside(4) == 0.5  # rows and columns 2-5
    assert made.outside(7) == 0.25  # 1-7: without the column of the last one
    assert made.outside(8) == 0.0
    assert field(np.ones((8, 8))).outside(4) == 0.75


def test_an_image_can_be_added_to_what_was_kept() -> None:
    first = ReceptiveFields({}, {}, 0).plus({"out": field([[1, 3]])})
    second = first.plus({"out": field([[5, 1]])})
    assert (first.count, second.count) == (1, 2)
    np.testing.assert_array_equal(first["out"].map, [[1, 3]])
    np.testing.assert_array_equal(second["out"].map, [[3, 2]])


def test_sizes_without_a_common_center_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"at the size 96 x 128, the center of out \(3 x 4\) is not .*; give multiples of 64"
    ):
        receptive_fields(of(nn.AvgPool2d(32)), [torch.ones(1, 1, 96, 128)])


def test_outputs_that_see_nothing_or_nan_are_refused() -> None:
    with pytest.raises(UserError, match="the network: out depends on no pixel of any of 1 images"):
        receptive_fields(of(lambda x: -ones(3)(x)), [torch.ones(1, 1, 8, 8)])
    with pytest.raises(UserError, match="gradient of out is not finite"):
        receptive_fields(of(lambda x: x + (x * 0).sqrt()), [torch.zeros(1, 1, 8, 8)])


def test_outputs_without_a_gradient_are_refused() -> None:
    weight = torch.ones(1, 1, 1, 1, requires_grad=True)
    for network in (lambda image: image.detach(), lambda image: weight * image.detach()):
        with pytest.raises(
            UserError, match="out has no gradient with respect to the image, which is normal for an exported file"
        ):
            image_fields(of(network), torch.ones(1, 1, 8, 8))

import math
from collections.abc import Sequence

import pytest
from torch import Tensor, nn

from segformer.models.build import model_config
from segformer.models.decoders import DECODERS, DecoderRow
from segformer.models.encoders import ENCODERS, EncoderRow
from segformer.models.interfaces import Decoder, Encoder
from segformer.paper.complexity import Complexity, complexity_lines, count_model
from segformer.published import MIT_SIZES

CROP, STREET = (512, 512), (1024, 2048)


def paper_model(encoder: str, num_classes: int = 150, size: tuple[int, int] = CROP) -> Complexity:
    return count_model(model_config(encoder), num_classes, size)


@pytest.mark.parametrize(
    ("encoder", "encoder_parameters", "parameters"),
    [
        ("mit_b0", 3_319_392, 3_752_694),
        ("mit_b1", 13_151_424, 13_715_798),
        ("mit_b2", 24_196_288, 27_461_974),
        ("mit_b3", 44_072_128, 47_337_814),
        ("mit_b4", 60_842_688, 64_108_374),
        ("mit_b5", 81_443_008, 84_708_694),
    ],
)
def test_parameters_are_those_of_the_released_models(encoder: str, encoder_parameters: int, parameters: int) -> None:
    found = paper_model(encoder)
    assert (found.encoder_parameters, found.parameters) == (encoder_parameters, parameters)


@pytest.mark.parametrize(
    ("encoder", "parameters"), [("mit_b0", 3_719_027), ("mit_b1", 13_682_131), ("mit_b5", 84_607_955)]
)
def test_parameters_for_cityscapes(encoder: str, parameters: int) -> None:
    assert paper_model(encoder, 19).parameters == parameters


def test_attention_of_the_first_stage_of_b0_worked_by_hand() -> None:
    # 512 x 512 -> 128 x 128 tokens of 32 channels; keys and values on a grid of 16 x 16; two blocks.
    tokens, channels, reduced = 128 * 128, 32, 16 * 16
    query = output = tokens * channels * channels
    reduction = reduced * (8 * 8 * channels) * channels
    key_value = reduced * channels * (2 * channels)
    products = 2 * tokens * reduced * channels  # Q K^T, and its softmax times V
    one_block = query + reduction + key_value + products + output
    assert paper_model("mit_b0").stages[0].attention_macs == 2 * one_block == 638_582_784


def formula(encoder: str, num_classes: int, size: tuple[int, int]) -> tuple[list[int], int, int]:
    """MACs of the stages, of Equation 4 and of the merged decoder, from the shapes in the paper."""
    mit, c_decoder = MIT_SIZES[encoder], MIT_SIZES[encoder].decoder_channels
    stages, grids, c_in = [], [], 3
    height, width = size
    for c, depth, reduction, (kernel, stride) in zip(
        mit.channels, mit.depths, (8, 4, 2, 1), ((7, 4), (3, 2), (3, 2), (3, 2)), strict=True
    ):
        height, width = math.ceil(height / stride), math.ceil(width / stride)
        n, n_reduced = height * width, (height // reduction) * (width // reduction)
        reduce = n_reduced * reduction**2 * c * c if reduction > 1 else 0
        attention = 2 * n * c * c + reduce + 2 * n_reduced * c * c + 2 * n * n_reduced * c
        ffn = 2 * n * c * 4 * c + n * 4 * c * 9
        stages.append(n * kernel**2 * c_in * c + depth * (attention + ffn))
        grids.append((n, c))
        c_in = c
    projections = sum(n * c * c_decoder for n, c in grids)
    classifier = grids[0][0] * c_decoder * num_classes
    fusion = grids[0][0] * 4 * c_decoder * c_decoder
    return stages, projections + fusion + classifier, projections + classifier


@pytest.mark.parametrize("encoder", MIT_SIZES)
def test_every_count_equals_its_formula(encoder: str) -> None:
    for num_classes, size in ((150, CROP), (5, (288, 411))):
        found = paper_model(encoder, num_classes, size)
        counted = [stage.macs for stage in found.stages], found.decoder_macs_literal, found.decoder_macs
        assert counted == formula(encoder, num_classes, size)


@pytest.mark.parametrize(
    ("num_classes", "size", "expected"),
    [(150, CROP, [51, 27, 62, 49, 40, 35]), (19, STREET, [28, 14, 44, 33, 25, 21])],
)
def test_share_of_the_arithmetic_that_is_removed(num_classes: int, size: tuple[int, int], expected: list[int]) -> None:
    shares = [paper_model(encoder, num_classes, size).share_removed for encoder in MIT_SIZES]
    assert [round(100 * share) for share in shares] == expected


def test_a_wider_decoder_and_other_channels_are_counted() -> None:
    base = paper_model("mit_b0")
    wide = count_model(model_config("mit_b0", decoder_channels=512), 150, CROP)
    gray = count_model(model_config("mit_b0", in_channels=1), 150, CROP)
    assert wide.encoder_macs == base.encoder_macs
    assert wide.decoder_macs_literal > 3 * base.decoder_macs_literal
    assert base.stages[0].macs - gray.stages[0].macs == 128 * 128 * 7 * 7 * 2 * 32


def test_a_size_below_the_smallest_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"at least 32 .* got 31 x 64"):
        paper_model("mit_b0", size=(31, 64))


def test_lines_name_parameters_and_macs() -> None:
    lines = complexity_lines(model_config("mit_b2"), 150, CROP)
    assert lines["parameters"].startswith("27,461,974 ")
    assert lines["MACs at 512 x 512"].startswith("23.68 G ")
    assert lines["as the paper counts"].startswith("62.34 G ")


class Twice(Encoder):
    """Two stages of strides 2 and 8, without attention, and a layer of its own after them."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = (8, 16)
        self.strides = (2, 8)
        self.first = nn.Conv2d(3, 8, 2, stride=2, bias=False)
        self.pool = nn.AvgPool2d(4)
        self.last = nn.Conv2d(8, 16, 1, bias=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        fine = self.first(images)
        return [fine, self.last(self.pool(fine))]

    def named_stages(self) -> dict[str, nn.Module]:
        return {"first": self.first, "pool": self.pool}


def test_an_encoder_of_other_stages_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        ENCODERS, "twice", EncoderRow(build=lambda config: Twice(), description="two stages", decoder_channels=8)
    )
    found = count_model(model_config("twice"), 5, (64, 96))
    pixels = 64 * 96
    first = pixels // 4 * 2 * 2 * 3 * 8
    assert [(stage.macs, stage.attention_macs) for stage in found.stages] == [(first, 0), (0, 0)]
    assert found.encoder_macs == first + pixels // 64 * 8 * 16
    assert found.encoder_parameters == 2 * 2 * 3 * 8 + 8 * 16
    assert found.decoder_macs < found.decoder_macs_literal


def test_a_decoder_that_is_computed_as_printed_has_no_second_count(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain(Decoder):
        def __init__(self, channels: Sequence[int], num_classes: int) -> None:
            super().__init__()
            self.classifier = nn.Conv2d(channels[0], num_classes, 1)

        def features(self, maps: Sequence[Tensor]) -> Tensor:
            return maps[0]

    row = DecoderRow(build=lambda channels, strides, classes, config: Plain(channels, classes), description="plain")
    monkeypatch.setitem(DECODERS, "plain", row)
    config = model_config("mit_b0", decoder="plain")
    found = count_model(config, 5, CROP)
    assert found.decoder_macs == found.decoder_macs_literal == 128 * 128 * 32 * 5
    assert "as the paper counts" not in complexity_lines(config, 5, CROP)

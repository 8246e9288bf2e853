"""An encoder of other strides and a decoder with an auxiliary head, as another project could add them to the tables."""

from collections.abc import Mapping, Sequence

import pytest
import torch.nn.functional as F
from torch import Tensor, nn

from segformer.config import ModelConfig
from segformer.models.decoders import DECODERS, DecoderRow
from segformer.models.encoders import ENCODERS, EncoderRow
from segformer.models.interfaces import Decoder, Encoder


class SmallEncoder(Encoder):
    """Three convolutions with batch norm; strides 2, 8 and 16."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.channels = (8, 12, 16)
        self.strides = (2, 8, 16)
        rows = zip((config.in_channels, 8, 12), self.channels, (2, 4, 2), strict=True)
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c_in, c, 2 * stride - 1, stride, stride - 1), nn.BatchNorm2d(c), nn.ReLU())
            for c_in, c, stride in rows
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [images]
        for level in self.levels:
            maps.append(level(maps[-1]))
        return maps[1:]

    def named_stages(self) -> Mapping[str, nn.Module]:
        return {f"levels.{i}": level for i, level in enumerate(self.levels)}


class SmallDecoder(Decoder):
    """One convolution on the coarsest map, and an auxiliary head on the finest one."""

    auxiliary_weights = (0.4,)

    def __init__(self, channels: Sequence[int], num_classes: int, width: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels[-1], width, 1)
        self.classifier = nn.Conv2d(width, num_classes, 1)
        self.auxiliary = nn.Conv2d(channels[0], num_classes, 1)

    def features(self, maps: Sequence[Tensor]) -> Tensor:
        return F.relu(F.interpolate(self.project(maps[-1]), maps[0].shape[2:], mode="bilinear"))

    def outputs(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return self(maps), self.auxiliary(maps[0])

    def reset_classes(self, num_classes: int) -> None:
        for name in ("classifier", "auxiliary"):
            setattr(self, name, nn.Conv2d(getattr(self, name).in_channels, num_classes, 1))


def build_small_decoder(
    channels: Sequence[int], strides: Sequence[int], num_classes: int, config: ModelConfig
) -> SmallDecoder:
    return SmallDecoder(channels, num_classes, config.decoder_channels)


def add_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add both to the tables, as "small"."""
    monkeypatch.setitem(
        ENCODERS, "small", EncoderRow(build=SmallEncoder, description="three maps", decoder_channels=24)
    )
    monkeypatch.setitem(DECODERS, "small", DecoderRow(build=build_small_decoder, description="For tests"))

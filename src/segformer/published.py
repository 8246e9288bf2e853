"""What the paper prints: sizes and figures, each written down once; recipes and tables read them from here."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class MiTSize:
    """One column of Table 6."""

    channels: tuple[int, int, int, int]
    """Embedding dimension C of each stage."""
    depths: tuple[int, int, int, int]
    """Number of blocks of each stage."""
    decoder_channels: int
    """Width C of the All-MLP decoder that goes with the encoder."""


MIT_SIZES = {
    "mit_b0": MiTSize(channels=(32, 64, 160, 256), depths=(2, 2, 2, 2), decoder_channels=256),
    "mit_b1": MiTSize(channels=(64, 128, 320, 512), depths=(2, 2, 2, 2), decoder_channels=256),
    "mit_b2": MiTSize(channels=(64, 128, 320, 512), depths=(3, 4, 6, 3), decoder_channels=768),
    "mit_b3": MiTSize(channels=(64, 128, 320, 512), depths=(3, 4, 18, 3), decoder_channels=768),
    "mit_b4": MiTSize(channels=(64, 128, 320, 512), depths=(3, 8, 27, 3), decoder_channels=768),
    "mit_b5": MiTSize(channels=(64, 128, 320, 512), depths=(3, 6, 40, 3), decoder_channels=768),
}

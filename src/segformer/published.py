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

TABLE_5_COLUMNS = (
    "clean",
    *("motion_blur", "defocus_blur", "glass_blur", "gaussian_blur"),
    *("gaussian_noise", "impulse_noise", "shot_noise", "speckle_noise"),
    *("brightness", "contrast", "saturate", "jpeg_compression"),
    *("snow", "spatter", "fog", "frost"),
)
TABLE_5: dict[str, dict[str, float]] = {
    method: dict(zip(TABLE_5_COLUMNS, map(float, figures.split()), strict=True))
    for method, figures in (
        ("DLv3+ (MBv2)", "72.0 53.5 49.0 45.3 49.1 6.4 7.0 6.6 16.6 51.7 46.7 32.4 27.2 13.7 38.9 47.4 17.3"),
        ("DLv3+ (R50)", "76.6 58.5 56.6 47.2 57.7 6.5 7.2 10.0 31.1 58.2 54.7 41.3 27.4 12.0 42.0 55.9 22.8"),
        ("DLv3+ (R101)", "77.1 59.1 56.3 47.7 57.3 13.2 13.9 16.3 36.9 59.2 54.5 41.5 37.4 11.9 47.8 55.1 22.7"),
        ("DLv3+ (X41)", "77.8 61.6 54.9 51.0 54.7 17.0 17.3 21.6 43.7 63.6 56.9 51.7 38.5 18.2 46.6 57.6 20.6"),
        ("DLv3+ (X65)", "78.4 63.9 59.1 52.8 59.2 15.0 10.6 19.8 42.4 65.9 59.1 46.1 31.4 19.3 50.7 63.6 23.8"),
        ("DLv3+ (X71)", "78.6 64.1 60.9 52.0 60.4 14.9 10.8 19.4 41.2 68.0 58.7 47.1 40.2 18.8 50.4 64.1 20.2"),
        ("ICNet", "65.9 45.8 44.6 47.4 44.7 8.4 8.4 10.6 27.9 41.0 33.1 27.5 34.0 6.3 30.5 27.3 11.0"),
        ("FCN8s", "66.7 42.7 31.1 37.0 34.1 6.7 5.7 7.8 24.9 53.3 39.0 36.0 21.2 11.3 31.6 37.6 19.7"),
        ("DilatedNet", "68.6 44.4 36.3 32.5 38.4 15.6 14.0 18.4 32.7 52.7 32.6 38.1 29.1 12.5 32.3 34.7 19.2"),
        ("ResNet-38", "77.5 54.6 45.1 43.3 47.2 13.7 16.0 18.2 38.3 60.0 50.6 46.9 14.7 13.5 45.9 52.9 22.2"),
        ("PSPNet", "78.8 59.8 53.2 44.4 53.9 11.0 15.4 15.4 34.2 60.4 51.8 30.6 21.4 8.4 42.7 34.4 16.2"),
        ("GSCNN", "80.9 58.9 58.4 41.9 60.1 5.5 2.6 6.8 24.7 75.9 61.9 70.7 12.0 12.4 47.3 67.9 32.6"),
        ("SETR-DeiT", "78.9 64.9 65.1 59.1 65.3 54.7 60.5 51.9 69.4 74.9 69.6 74.9 58.5 44.3 64.8 68.2 39.1"),
        ("SegFormer-B5", "82.4 69.1 68.6 64.1 69.8 57.8 63.4 52.3 72.8 81.0 77.7 80.1 58.8 40.7 68.4 78.5 49.9"),
    )
}
"""mIoU in % on Cityscapes-C by method and corruption ("clean": without any)."""

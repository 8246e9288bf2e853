"""Sizes and results as printed in the paper.  The recipes and the paper's tables take them from here."""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, kw_only=True)
class MiTSize:
    """Sizes of one encoder and its decoder: a column of Table 6."""

    channels: tuple[int, int, int, int]
    """Embedding dimension C of each stage."""
    depths: tuple[int, int, int, int]
    """Number of blocks of each stage."""
    decoder_channels: int
    """Number of channels C of the All-MLP decoder that the paper uses with this encoder."""


MIT_SIZES = {
    "mit_b0": MiTSize(channels=(32, 64, 160, 256), depths=(2, 2, 2, 2), decoder_channels=256),
    "mit_b1": MiTSize(channels=(64, 128, 320, 512), depths=(2, 2, 2, 2), decoder_channels=256),
    "mit_b2": MiTSize(channels=(64, 128, 320, 512), depths=(3, 4, 6, 3), decoder_channels=768),
    "mit_b3": MiTSize(channels=(64, 128, 320, 512), depths=(3, 4, 18, 3), decoder_channels=768),
    "mit_b4": MiTSize(channels=(64, 128, 320, 512), depths=(3, 8, 27, 3), decoder_channels=768),
    "mit_b5": MiTSize(channels=(64, 128, 320, 512), depths=(3, 6, 40, 3), decoder_channels=768),
}


# The values below are written as the paper prints them: parameters in M, Flops in G, mIoU in %; "-": no value printed.


class Table1a(NamedTuple):
    """Size, cost and accuracy of an encoder; mIoU is from single-scale tests unless the name says multiscale."""

    encoder_params: str
    decoder_params: str
    ade20k_flops: str
    ade20k_miou: str
    ade20k_multiscale: str
    cityscapes_flops: str
    cityscapes_miou: str
    cityscapes_multiscale: str
    coco_stuff_flops: str
    coco_stuff_miou: str


TABLE_1A = {
    "mit_b0": Table1a("3.4", "0.4", "8.4", "37.4", "38.0", "125.5", "76.2", "78.1", "8.4", "35.6"),
    "mit_b1": Table1a("13.1", "0.6", "15.9", "42.2", "43.1", "243.7", "78.5", "80.0", "15.9", "40.2"),
    "mit_b2": Table1a("24.2", "3.3", "62.4", "46.5", "47.5", "717.1", "81.0", "82.2", "62.4", "44.6"),
    "mit_b3": Table1a("44.0", "3.3", "79.0", "49.4", "50.0", "962.9", "81.7", "83.3", "79.0", "45.5"),
    "mit_b4": Table1a("60.8", "3.3", "95.7", "50.3", "51.1", "1240.6", "82.3", "83.9", "95.7", "46.5"),
    "mit_b5": Table1a("81.4", "3.3", "183.3", "51.0", "51.8", "1460.4", "82.4", "84.0", "111.6", "46.7"),
}


class Table1b(NamedTuple):
    """MiT-B2 with one decoder width C, on ADE20K after 40,000 steps."""

    flops: str
    params: str
    miou: str


TABLE_1B = {
    256: Table1b("25.7", "24.7", "44.9"),
    512: Table1b("39.8", "25.8", "45.0"),
    768: Table1b("62.4", "27.5", "45.4"),
    1024: Table1b("93.6", "29.6", "45.2"),
    2048: Table1b("304.4", "43.4", "45.6"),
}


class Table1d(NamedTuple):
    """An encoder with the All-MLP decoder, on ADE20K after 40,000 steps; S1-4 or S4: stages that the decoder uses."""

    flops: str
    params: str
    miou: str


TABLE_1D = {
    "ResNet50 (S1-4)": Table1d("69.2", "29.0", "34.7"),
    "ResNet101 (S1-4)": Table1d("88.7", "47.9", "38.7"),
    "ResNeXt101 (S1-4)": Table1d("127.5", "86.8", "39.8"),
    "MiT-B2 (S4)": Table1d("22.3", "24.7", "43.1"),
    "MiT-B2 (S1-4)": Table1d("62.4", "27.7", "45.4"),
    "MiT-B3 (S1-4)": Table1d("79.0", "47.3", "48.6"),
}


class Table2(NamedTuple):
    """A method on ADE20K and Cityscapes; the number after "SegFormer @" is the short side on Cityscapes."""

    method: str
    encoder: str
    params: str
    ade20k_flops: str
    ade20k_fps: str
    ade20k_miou: str
    cityscapes_flops: str
    cityscapes_fps: str
    cityscapes_miou: str


TABLE_2 = (
    Table2("FCN", "MobileNetV2", "9.8", "39.6", "64.4", "19.7", "317.1", "14.2", "61.5"),
    Table2("ICNet", "-", "-", "-", "-", "-", "-", "30.3", "67.7"),
    Table2("PSPNet", "MobileNetV2", "13.7", "52.9", "57.7", "29.6", "423.4", "11.2", "70.2"),
    Table2("DeepLabV3+", "MobileNetV2", "15.4", "69.4", "43.1", "34.0", "555.4", "8.4", "75.2"),
    Table2("SegFormer @ 1024", "MiT-B0", "3.8", "8.4", "50.5", "37.4", "125.5", "15.2", "76.2"),
    Table2("SegFormer @ 768", "MiT-B0", "", "-", "-", "-", "51.7", "26.3", "75.3"),
    Table2("SegFormer @ 640", "MiT-B0", "", "-", "-", "-", "31.5", "37.1", "73.7"),
    Table2("SegFormer @ 512", "MiT-B0", "", "-", "-", "-", "17.7", "47.6", "71.9"),
    Table2("FCN", "ResNet-101", "68.6", "275.7", "14.8", "41.4", "2203.3", "1.2", "76.6"),
    Table2("EncNet", "ResNet-101", "55.1", "218.8", "14.9", "44.7", "1748.0", "1.3", "76.9"),
    Table2("PSPNet", "ResNet-101", "68.1", "256.4", "15.3", "44.4", "2048.9", "1.2", "78.5"),
    Table2("CCNet", "ResNet-101", "68.9", "278.4", "14.1", "45.2", "2224.8", "1.0", "80.2"),
    Table2("DeeplabV3+", "ResNet-101", "62.7", "255.1", "14.1", "44.1", "2032.3", "1.2", "80.9"),
    Table2("OCRNet", "HRNet-W48", "70.5", "164.8", "17.0", "45.6", "1296.8", "4.2", "81.1"),
    Table2("GSCNN", "WideResNet38", "-", "-", "-", "-", "-", "-", "80.8"),
    Table2("Axial-DeepLab", "AxialResNet-XL", "-", "-", "-", "-", "2446.8", "-", "81.1"),
    Table2("Dynamic Routing", "Dynamic-L33-PSP", "-", "-", "-", "-", "270.0", "-", "80.7"),
    Table2("Auto-Deeplab", "NAS-F48-ASPP", "-", "-", "-", "44.0", "695.0", "-", "80.3"),
    Table2("SETR", "ViT-Large", "318.3", "-", "5.4", "50.2", "-", "0.5", "82.2"),
    Table2("SegFormer @ 1024", "MiT-B4", "64.1", "95.7", "15.4", "51.1", "1240.6", "3.0", "83.8"),
    Table2("SegFormer @ 1024", "MiT-B5", "84.7", "183.3", "9.8", "51.8", "1447.6", "2.5", "84.0"),
)


class Table3(NamedTuple):
    """An encoder with a decoder, on ADE20K; Flops and parameters are those of the decoder alone."""

    encoder: str
    decoder: str
    miou: str
    fps: str
    flops: str
    params: str


TABLE_3 = (
    Table3("MiT-B2", "UperNet (Swin)", "46.5", "14.2", "210.7", "29.7"),
    Table3("MiT-B2", "MLA (SETR)", "46.2", "9.5", "87.7", "4.2"),
    Table3("MiT-B2", "MLP (Ours)", "46.5", "21.4", "42.1", "3.3"),
    Table3("MiT-B5", "UperNet (Swin)", "50.7", "5.3", "210.7", "29.7"),
    Table3("MiT-B5", "MLA (SETR)", "50.9", "3.8", "87.7", "4.2"),
    Table3("MiT-B5", "MLP (Ours)", "51.0", "9.8", "42.1", "3.3"),
    Table3("Swin-T", "MLP (Ours)", "43.4", "20.6", "42.8", "3.6"),
    Table3("Swin-T", "UperNet (Swin)", "44.5", "15.4", "211.3", "31.4"),
    Table3("ViT-L", "MLP (Ours)", "47.7", "4.7", "0.6", "0.6"),
    Table3("ViT-L", "MLA (SETR)", "47.7", "4.6", "1.8", "3.7"),
)

TABLE_4 = {"ImageNet-1K": "82.2", "ImageNet-1K, Mapillary Vistas": "83.1"}
"""mIoU in % of SegFormer-B5 on Cityscapes test, by the data used for pre-training."""

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
"""mIoU in % on Cityscapes-C, by method and then by corruption ("clean": no corruption)."""

IMAGENET_TOP1 = {
    "mit_b0": "70.5",
    "mit_b1": "78.7",
    "mit_b2": "81.6",
    "mit_b3": "83.1",
    "mit_b4": "83.6",
    "mit_b5": "83.8",
}
"""Top-1 accuracy in % on ImageNet-1K val, by encoder."""

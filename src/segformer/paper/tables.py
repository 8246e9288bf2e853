"""The paper's tables: its printed figures beside what is counted here, and how to measure the others.

A count needs no data: parameters in M, multiply-accumulates (the paper's "Flops") in G, Equation 4 taken literally.
mIoU and FPS are the paper's, and stay so until somebody measures them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segformer.config import check_choice
from segformer.models.build import model_config
from segformer.published import MIT_SIZES
from segformer.robustness.table5 import table5

if TYPE_CHECKING:
    from rich.console import RenderableType

    from segformer.paper.complexity import Complexity

ADE20K_CLASSES, CITYSCAPES_CLASSES = 150, 19
CROP = (512, 512)
LARGE_CROP = (640, 640)  # MiT-B5 on ADE20K (Sec. 4.1)
STREET = (1024, 2048)
MISSING = "not in this package yet"
WIDTH = 120  # of the widest table, in characters

MIOU = "{} mIoU: reported by the paper; to measure: segformer evaluate MODEL --data {}"
ADE20K = MIOU.format("ADE20K", "ade20k=ROOT")
CITYSCAPES = MIOU.format("Cityscapes", "cityscapes=ROOT --protocol slide")
COCO_STUFF = MIOU.format("COCO-Stuff", "coco_stuff=ROOT")
FPS = "FPS: reported by the paper, on its own machine; no command of this package times a model yet"

# The rows as the paper prints them: names, then one figure a column.
TABLE_1A = (
    ("MiT-B0", "3.4", "0.4", "8.4", "37.4 / 38.0", "125.5", "76.2 / 78.1", "8.4", "35.6"),
    ("MiT-B1", "13.1", "0.6", "15.9", "42.2 / 43.1", "243.7", "78.5 / 80.0", "15.9", "40.2"),
    ("MiT-B2", "24.2", "3.3", "62.4", "46.5 / 47.5", "717.1", "81.0 / 82.2", "62.4", "44.6"),
    ("MiT-B3", "44.0", "3.3", "79.0", "49.4 / 50.0", "962.9", "81.7 / 83.3", "79.0", "45.5"),
    ("MiT-B4", "60.8", "3.3", "95.7", "50.3 / 51.1", "1240.6", "82.3 / 83.9", "95.7", "46.5"),
    ("MiT-B5", "81.4", "3.3", "183.3", "51.0 / 51.8", "1460.4", "82.4 / 84.0", "111.6", "46.7"),
)
TABLE_1B = (
    ("256", "25.7", "24.7", "44.9"),
    ("512", "39.8", "25.8", "45.0"),
    ("768", "62.4", "27.5", "45.4"),
    ("1024", "93.6", "29.6", "45.2"),
    ("2048", "304.4", "43.4", "45.6"),
)
TABLE_1D = (
    ("ResNet50 (S1-4)", "69.2", "29.0", "34.7"),
    ("ResNet101 (S1-4)", "88.7", "47.9", "38.7"),
    ("ResNeXt101 (S1-4)", "127.5", "86.8", "39.8"),
    ("MiT-B2 (S4)", "22.3", "24.7", "43.1"),
    ("MiT-B2 (S1-4)", "62.4", "27.7", "45.4"),
    ("MiT-B3 (S1-4)", "79.0", "47.3", "48.6"),
)
TABLE_2 = (
    ("FCN", "MobileNetV2", "9.8", "39.6", "64.4", "19.7", "317.1", "14.2", "61.5"),
    ("ICNet", "-", "-", "-", "-", "-", "-", "30.3", "67.7"),
    ("PSPNet", "MobileNetV2", "13.7", "52.9", "57.7", "29.6", "423.4", "11.2", "70.2"),
    ("DeepLabV3+", "MobileNetV2", "15.4", "69.4", "43.1", "34.0", "555.4", "8.4", "75.2"),
    ("SegFormer @ 1024", "MiT-B0", "3.8", "8.4", "50.5", "37.4", "125.5", "15.2", "76.2"),
    ("SegFormer @ 768", "MiT-B0", "", "-", "-", "-", "51.7", "26.3", "75.3"),
    ("SegFormer @ 640", "MiT-B0", "", "-", "-", "-", "31.5", "37.1", "73.7"),
    ("SegFormer @ 512", "MiT-B0", "", "-", "-", "-", "17.7", "47.6", "71.9"),
    ("FCN", "ResNet-101", "68.6", "275.7", "14.8", "41.4", "2203.3", "1.2", "76.6"),
    ("EncNet", "ResNet-101", "55.1", "218.8", "14.9", "44.7", "1748.0", "1.3", "76.9"),
    ("PSPNet", "ResNet-101", "68.1", "256.4", "15.3", "44.4", "2048.9", "1.2", "78.5"),
    ("CCNet", "ResNet-101", "68.9", "278.4", "14.1", "45.2", "2224.8", "1.0", "80.2"),
    ("DeeplabV3+", "ResNet-101", "62.7", "255.1", "14.1", "44.1", "2032.3", "1.2", "80.9"),
    ("OCRNet", "HRNet-W48", "70.5", "164.8", "17.0", "45.6", "1296.8", "4.2", "81.1"),
    ("GSCNN", "WideResNet38", "-", "-", "-", "-", "-", "-", "80.8"),
    ("Axial-DeepLab", "AxialResNet-XL", "-", "-", "-", "-", "2446.8", "-", "81.1"),
    ("Dynamic Routing", "Dynamic-L33-PSP", "-", "-", "-", "-", "270.0", "-", "80.7"),
    ("Auto-Deeplab", "NAS-F48-ASPP", "-", "-", "-", "44.0", "695.0", "-", "80.3"),
    ("SETR", "ViT-Large", "318.3", "-", "5.4", "50.2", "-", "0.5", "82.2"),
    ("SegFormer @ 1024", "MiT-B4", "64.1", "95.7", "15.4", "51.1", "1240.6", "3.0", "83.8"),
    ("SegFormer @ 1024", "MiT-B5", "84.7", "183.3", "9.8", "51.8", "1447.6", "2.5", "84.0"),
)
TABLE_3 = (
    ("MiT-B2", "UperNet (Swin)", "46.5", "14.2", "210.7", "29.7"),
    ("MiT-B2", "MLA (SETR)", "46.2", "9.5", "87.7", "4.2"),
    ("MiT-B2", "MLP (Ours)", "46.5", "21.4", "42.1", "3.3"),
    ("MiT-B5", "UperNet (Swin)", "50.7", "5.3", "210.7", "29.7"),
    ("MiT-B5", "MLA (SETR)", "50.9", "3.8", "87.7", "4.2"),
    ("MiT-B5", "MLP (Ours)", "51.0", "9.8", "42.1", "3.3"),
    ("Swin-T", "MLP (Ours)", "43.4", "20.6", "42.8", "3.6"),
    ("Swin-T", "UperNet (Swin)", "44.5", "15.4", "211.3", "31.4"),
    ("ViT-L", "MLP (Ours)", "47.7", "4.7", "0.6", "0.6"),
    ("ViT-L", "MLA (SETR)", "47.7", "4.6", "1.8", "3.7"),
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table, column by column."""

    name: str
    paper: tuple[str, ...]
    """As printed; empty or - where the paper gives none."""
    counted: tuple[float | None, ...] | None
    """In M or G; None in a column that needs data; None altogether where the model is not in this package."""


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A table of the paper beside our counts."""

    title: str
    columns: tuple[tuple[str, str | None], ...]
    """Heading, and for a column that needs data how to get it."""
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def table1a() -> PaperTable:
    """Parameters, Flops and accuracy of the six encoders."""
    rows = []
    for name, *paper in TABLE_1A:
        ade20k = count(name, size=LARGE_CROP if name == "MiT-B5" else CROP)
        counted = (
            ade20k.encoder_parameters / 1e6,
            ade20k.decoder_parameters / 1e6,
            flops(ade20k),
            None,
            flops(count(name, size=STREET)),
            flops(count(name, CITYSCAPES_CLASSES, size=STREET)),
            None,
            flops(count(name, size=CROP)),
            None,
        )
        rows.append(Row(name=name, paper=(*paper[:5], *paper[4:]), counted=counted))
    return PaperTable(
        title="Table 1a: the encoder's size",
        columns=(
            ("Encoder\nparams", None),
            ("Decoder\nparams", None),
            ("ADE20K\nFlops", None),
            ("ADE20K\nmIoU SS / MS", ADE20K),
            ("Cityscapes\nFlops,\n150 classes", None),
            ("Cityscapes\nFlops,\n19 classes", None),
            ("Cityscapes\nmIoU SS / MS", CITYSCAPES),
            ("COCO-Stuff\nFlops", None),
            ("COCO-Stuff\nmIoU SS", COCO_STUFF),
        ),
        rows=tuple(rows),
        notes=(
            "Counted at 512 x 512 (MiT-B5 on ADE20K: 640 x 640) and 1024 x 2048; 150 classes where no other is named.",
            "The paper's Cityscapes Flops fit a head of 150 classes, and Cityscapes has 19: both are counted.",
            "MiT-B5's 183.3 on ADE20K is 640 x 640; its 111.6 on COCO-Stuff is 512 x 512.",
            "SS, MS: single-scale, multi-scale test; for the latter --protocol multiscale.",
        ),
    )


def table1b() -> PaperTable:
    """The decoder's width C, on MiT-B2."""
    rows = []
    for channels, *paper in TABLE_1B:
        found = count("MiT-B2", size=CROP, decoder_channels=int(channels))
        counted = (flops(found), found.parameters / 1e6, None)
        rows.append(Row(name=f"C = {channels}", paper=tuple(paper), counted=counted))
    return PaperTable(
        title="Table 1b: the decoder's width C (MiT-B2, ADE20K, 512 x 512)",
        columns=(("Flops", None), ("Params", None), ("mIoU", ADE20K)),
        rows=tuple(rows),
    )


def table1d() -> PaperTable:
    """Encoders under the MLP decoder, and stage 4 alone."""
    rows = []
    for name, *paper in TABLE_1D:
        counted = None
        if name == "MiT-B2 (S4)":
            counted = (*stage_four(), None)
        elif name.startswith("MiT"):
            found = count(name.split()[0], size=CROP)
            counted = (flops(found), found.parameters / 1e6, None)
        rows.append(Row(name=name, paper=tuple(paper), counted=counted))
    return PaperTable(
        title="Table 1d: encoders under the MLP decoder (ADE20K, 512 x 512)",
        columns=(("Flops", None), ("Params", None), ("mIoU", ADE20K)),
        rows=tuple(rows),
        notes=(
            "S4 is counted as stage 4's map through a linear layer, upsampled, then classified; no fusion.",
            "For MiT-B2 (S1-4) the paper prints 27.7 M here, and 27.5 M for the same model in Table 1b.",
        ),
    )


def stage_four() -> tuple[float, float]:
    """Flops in G and parameters in M of MiT-B2 (S4): encoder, linear layer on stage 4, upsampling, classifier."""
    encoder = count("MiT-B2", size=CROP)
    c4, channels, num_classes = 512, 768, ADE20K_CLASSES
    macs = (512 // 32) ** 2 * c4 * channels + (512 // 4) ** 2 * channels * num_classes
    parameters = (c4 + 1) * channels + (channels + 1) * num_classes
    return (encoder.encoder_macs + macs) / 1e9, (encoder.encoder_parameters + parameters) / 1e6


def table2() -> PaperTable:
    """Other methods on ADE20K and Cityscapes."""
    rows = []
    for method, encoder, *paper in TABLE_2:
        counted = None
        if method.startswith("SegFormer"):
            short = int(method.split()[-1])
            ade20k = count(encoder, size=LARGE_CROP if encoder == "MiT-B5" else CROP)
            street = [flops(count(encoder, k, size=(short, 2 * short))) for k in (ADE20K_CLASSES, CITYSCAPES_CLASSES)]
            counted = (ade20k.parameters / 1e6, flops(ade20k), None, None, *street, None, None)
        rows.append(Row(name=f"{method}\n{encoder}", paper=(*paper[:5], *paper[4:]), counted=counted))
    return PaperTable(
        title="Table 2: other methods on ADE20K and Cityscapes",
        columns=(
            ("Params", None),
            ("ADE20K\nFlops", None),
            ("ADE20K\nFPS", FPS),
            ("ADE20K\nmIoU", ADE20K),
            ("Cityscapes\nFlops,\n150 classes", None),
            ("Cityscapes\nFlops,\n19 classes", None),
            ("Cityscapes\nFPS", FPS),
            ("Cityscapes\nmIoU", CITYSCAPES),
        ),
        rows=tuple(rows),
        notes=(
            "Counted at 512 x 512 (MiT-B5: 640 x 640) and, on Cityscapes, at the short side (@) x twice that.",
            "The paper's Cityscapes Flops mix two heads: 125.5 and 1240.6 fit 150 classes, the others 19.",
            "mIoU of MiT-B4 and MiT-B5 is that of a multi-scale test; short sides 640 and 512 are tested whole.",
        ),
    )


def table3() -> PaperTable:
    """Encoders and decoders; parameters and Flops of the decoder alone."""
    rows = []
    for encoder, decoder, *paper in TABLE_3:
        counted = None
        if encoder.startswith("MiT") and decoder == "MLP (Ours)":
            found = count(encoder, size=CROP)
            counted = (None, None, found.decoder_macs_literal / 1e9, found.decoder_parameters / 1e6)
        rows.append(Row(name=f"{encoder}, {decoder}", paper=tuple(paper), counted=counted))
    return PaperTable(
        title="Table 3: encoders and decoders (ADE20K, 512 x 512)",
        columns=(("mIoU", ADE20K), ("FPS", FPS), ("Decoder\nFlops", None), ("Decoder\nparams", None)),
        rows=tuple(rows),
    )


def savings() -> "RenderableType":
    """Share of the whole model's multiply-accumulates that the merged decoder never computes."""
    from rich.console import Group
    from rich.table import Table

    settings = ((CROP, ADE20K_CLASSES), (STREET, CITYSCAPES_CLASSES))
    table = Table("")
    for (height, width), num_classes in settings:
        setting = f"{height} x {width}\n{num_classes} classes\n"
        for heading in ("Equation 4", "computed", "removed"):
            table.add_column(setting + heading, justify="right")
    for encoder in MIT_SIZES:
        found = [count(encoder, num_classes, size=size) for size, num_classes in settings]
        figures = [(f"{flops(c):.1f}", f"{c.macs / 1e9:.1f}", f"{100 * c.share_removed:.0f} %") for c in found]
        table.add_row(encoder, *(figure for triple in figures for figure in triple))
    note = "The same parameters and, up to rounding, the same logits as Equation 4 as printed."
    return Group("Multiply-accumulates of the whole model, in G", table, note)


def count(name: str, num_classes: int = ADE20K_CLASSES, *, size: tuple[int, int], **options: Any) -> "Complexity":
    """Count the model with the encoder that the paper calls ``name``."""
    from segformer.paper.complexity import measure  # imports torch; the command line only wants the tables' names

    return measure(model_config(name.lower().replace("-", "_"), **options), num_classes, size)


def flops(found: "Complexity") -> float:
    """Return what the paper calls Flops, in G."""
    return found.macs_literal / 1e9


def render(table: PaperTable) -> "RenderableType":
    """Show a table: three lines a row (paper, counted, difference), then how to get what was not counted."""
    from rich.box import HORIZONTALS
    from rich.console import Group
    from rich.table import Table

    hints = list(dict.fromkeys(hint for _, hint in table.columns if hint))
    marks = {hint: f"({letter})" for hint, letter in zip(hints, "abc", strict=False)}
    shown = Table("", "", box=HORIZONTALS, show_lines=True, padding=0)
    for heading, _ in table.columns:
        shown.add_column(heading, justify="right", no_wrap=True)
    for row in table.rows:
        shown.add_row(*cells(row, [marks[hint] if hint else "" for _, hint in table.columns]))
    title = f"{table.title}; parameters in M, Flops in G"
    return Group(title, shown, *table.notes, *(f"{mark} {hint}" for hint, mark in marks.items()))


def cells(row: Row, marks: Sequence[str]) -> list[str]:
    """Text of a row's cells, of up to three lines."""
    if row.counted is None:
        return [f"{row.name}\n{MISSING}", "paper", *row.paper]
    lines = (compare(*column) for column in zip(row.paper, row.counted, marks, strict=True))
    return [row.name, "paper\ncounted\ndifference", *("\n".join(column) for column in lines)]


def compare(paper: str, counted: float | None, mark: str) -> tuple[str, ...]:
    """Return the paper's figure, ours (or the mark of the note on how to get it) and the difference.

    >>> compare("8.4", 8.388, ""), compare("37.4", None, "(a)")
    (('8.4', '8.39', '-0.01'), ('37.4', '(a)'))
    """
    if paper in ("", "-"):
        return (paper,)
    return (paper, mark) if counted is None else (paper, f"{counted:.2f}", f"{counted - float(paper):+z.2f}")


TABLES: dict[str, Callable[[], PaperTable]] = {
    "table1a": table1a,
    "table1b": table1b,
    "table1d": table1d,
    "table2": table2,
    "table3": table3,
}
SHOWN: dict[str, Callable[[], "RenderableType"]] = {"table5": table5, "savings": savings}  # nothing to count beside
NAMES = (*TABLES, *SHOWN)


def reproduce(name: str) -> None:
    """Print one of NAMES: a table of the paper beside our counts or alone, or the arithmetic that is saved.

    A UserError names the closest known one.
    """
    from rich.console import Console

    check_choice("table", name, NAMES)
    console = Console(highlight=False)
    console.width = max(console.width, WIDTH)  # a cut figure is worse than a line that the terminal wraps
    console.print(SHOWN[name]() if name in SHOWN else render(TABLES[name]()))

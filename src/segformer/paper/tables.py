"""The paper's tables: printed values, our own counts beside them, and commands to measure what cannot be counted.

Parameters (in M) and multiply-accumulates (the paper's "Flops", in G) can be counted without data; the decoder is
counted as printed in Equation 4.  All values of mIoU and FPS are taken from the paper.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from segformer.config import Size
from segformer.models.build import model_config
from segformer.paper.complexity import Complexity, count_model
from segformer.published import MIT_SIZES, TABLE_1A, TABLE_1B, TABLE_1D, TABLE_2, TABLE_3

ADE20K_CLASSES = 150
CITYSCAPES_CLASSES = 19
CROP = (512, 512)
LARGE_CROP = (640, 640)  # MiT-B5 on ADE20K (Sec. 4.1)
STREET = (1024, 2048)  # a whole image of Cityscapes

MIOU = "{} mIoU: reported by the paper. To measure it: segformer evaluate MODEL --data {}"
ADE20K = MIOU.format("ADE20K", "ade20k=ROOT")
CITYSCAPES = MIOU.format("Cityscapes", "cityscapes=ROOT --protocol slide")
COCO_STUFF = MIOU.format("COCO-Stuff", "coco_stuff=ROOT")
FPS = "FPS: reported by the paper, measured on its machine; this package has no command to measure it yet"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table: the paper's value and our count for each column."""

    name: str
    paper: tuple[str, ...]
    """Value of each column as printed in the paper; "" or "-" if the paper prints none."""
    counted: tuple[float | None, ...] | None
    """Our count for each column, in M or G, or None if it is not counted; None for a row without any counts."""


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A table of the paper with our counts beside the printed values."""

    title: str
    columns: tuple[tuple[str, str | None], ...]
    """For each column, its heading and a text that says how to measure it; the text is None if it can be counted."""
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Saving:
    """Multiply-accumulates of a whole model, with the decoder as printed and as computed by this package."""

    encoder: str
    literal: float
    """Multiply-accumulates with Equation 4 as printed, in G."""
    computed: float
    """Multiply-accumulates with the merged decoder, in G."""
    share_removed: float
    """Share of ``literal`` that the merged decoder saves, from 0 to 1."""


def table1a() -> PaperTable:
    """Return Table 1a: parameters, Flops and accuracy of the six encoders."""
    rows = []
    for encoder, paper in TABLE_1A.items():
        ade20k = count(encoder, size=LARGE_CROP if encoder == "mit_b5" else CROP)
        counted = (
            ade20k.encoder_parameters / 1e6,
            ade20k.decoder_parameters / 1e6,
            flops(ade20k),
            None,
            flops(count(encoder, size=STREET)),
            flops(count(encoder, CITYSCAPES_CLASSES, size=STREET)),
            None,
            flops(count(encoder, size=CROP)),
            None,
        )
        figures = (
            paper.encoder_params,
            paper.decoder_params,
            paper.ade20k_flops,
            f"{paper.ade20k_miou} / {paper.ade20k_multiscale}",
            paper.cityscapes_flops,
            paper.cityscapes_flops,
            f"{paper.cityscapes_miou} / {paper.cityscapes_multiscale}",
            paper.coco_stuff_flops,
            paper.coco_stuff_miou,
        )
        rows.append(Row(name=printed_name(encoder), paper=figures, counted=counted))
    return PaperTable(
        title="Table 1a: encoders of different sizes",
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
        notes=TABLE_1A_NOTES,
    )


TABLE_1A_NOTES = (
    "We count at 512 x 512 (MiT-B5 on ADE20K: 640 x 640), and at 1024 x 2048 on Cityscapes. The number of classes is "
    "150 unless the heading says otherwise.",
    "The paper's Flops on Cityscapes match a model with 150 classes, but Cityscapes has 19; we count both.",
    "For MiT-B5, the paper's 183.3 on ADE20K is at 640 x 640, and its 111.6 on COCO-Stuff is at 512 x 512.",
    "SS: single-scale test; MS: multi-scale test. To measure MS, add --protocol multiscale.",
)


def table1b() -> PaperTable:
    """Return Table 1b: MiT-B2 with decoders of different widths C."""
    rows = []
    for channels, paper in TABLE_1B.items():
        found = count("mit_b2", size=CROP, decoder_channels=channels)
        counted = (flops(found), found.parameters / 1e6, None)
        rows.append(Row(name=f"C = {channels}", paper=tuple(paper), counted=counted))
    return PaperTable(
        title="Table 1b: decoders of different widths C (MiT-B2, ADE20K, 512 x 512)",
        columns=(("Flops", None), ("Params", None), ("mIoU", ADE20K)),
        rows=tuple(rows),
    )


def table1d() -> PaperTable:
    """Return Table 1d: encoders with the All-MLP decoder, and a decoder that uses only stage 4."""
    rows = []
    for name, paper in TABLE_1D.items():
        counted = None
        if name == "MiT-B2 (S4)":
            counted = (*stage_four(), None)
        elif name.startswith("MiT"):
            found = count(encoder_name(name.split()[0]), size=CROP)
            counted = (flops(found), found.parameters / 1e6, None)
        rows.append(Row(name=name, paper=tuple(paper), counted=counted))
    return PaperTable(
        title="Table 1d: encoders with the MLP decoder (ADE20K, 512 x 512)",
        columns=(("Flops", None), ("Params", None), ("mIoU", ADE20K)),
        rows=tuple(rows),
        notes=(
            "Our decoder for S4 is a linear layer on the map of stage 4, upsampling and a classifier, without fusion.",
            "For MiT-B2 (S1-4) the paper prints 27.7 M here, but 27.5 M for the same model in Table 1b.",
        ),
    )


def stage_four() -> tuple[float, float]:
    """Return (Flops in G, parameters in M) of MiT-B2 (S4): encoder, linear layer on stage 4, upsampling, classifier."""
    encoder = count("mit_b2", size=CROP)
    size = MIT_SIZES["mit_b2"]
    c4 = size.channels[-1]
    channels = size.decoder_channels
    macs = (CROP[0] // 32) ** 2 * c4 * channels + (CROP[0] // 4) ** 2 * channels * ADE20K_CLASSES
    parameters = (c4 + 1) * channels + (channels + 1) * ADE20K_CLASSES
    return (encoder.encoder_macs + macs) / 1e9, (encoder.encoder_parameters + parameters) / 1e6


def table2() -> PaperTable:
    """Return Table 2: SegFormer and other methods on ADE20K and Cityscapes."""
    rows = []
    for row in TABLE_2:
        method, encoder, *paper = row
        counted = None
        if method.startswith("SegFormer"):
            short = int(method.split()[-1])
            name = encoder_name(encoder)
            ade20k = count(name, size=LARGE_CROP if name == "mit_b5" else CROP)
            street = [flops(count(name, k, size=(short, 2 * short))) for k in (ADE20K_CLASSES, CITYSCAPES_CLASSES)]
            counted = (ade20k.parameters / 1e6, flops(ade20k), None, None, *street, None, None)
        rows.append(Row(name=f"{method}, {encoder}", paper=(*paper[:5], *paper[4:]), counted=counted))
    return PaperTable(
        title="Table 2: SegFormer and other methods on ADE20K and Cityscapes",
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
            "We count at 512 x 512 on ADE20K (MiT-B5: 640 x 640). On Cityscapes, the number after @ is the height of "
            "the image, and its width is twice that.",
            "Among the paper's Flops on Cityscapes, 125.5 and 1240.6 match 150 classes; the others match 19.",
            "MiT-B4 and MiT-B5 are tested at multiple scales. Images with short sides of 640 and 512 are not cut into "
            "sliding windows.",
        ),
    )


def table3() -> PaperTable:
    """Return Table 3: combinations of encoders and decoders, with parameters and Flops of the decoder alone."""
    rows = []
    for encoder, decoder, *paper in TABLE_3:
        counted = None
        if encoder.startswith("MiT") and decoder == "MLP (Ours)":
            found = count(encoder_name(encoder), size=CROP)
            counted = (None, None, found.decoder_macs_literal / 1e9, found.decoder_parameters / 1e6)
        rows.append(Row(name=f"{encoder}, {decoder}", paper=tuple(paper), counted=counted))
    return PaperTable(
        title="Table 3: combinations of encoders and decoders (ADE20K, 512 x 512)",
        columns=(("mIoU", ADE20K), ("FPS", FPS), ("Decoder\nFlops", None), ("Decoder\nparams", None)),
        rows=tuple(rows),
    )


COUNTED_TABLES: dict[str, Callable[[], PaperTable]] = {
    "table1a": table1a,
    "table1b": table1b,
    "table1d": table1d,
    "table2": table2,
    "table3": table3,
}


def savings(size: Size, num_classes: int) -> list[Saving]:
    """Return, for each of the paper's six encoders, how many multiply-accumulates the merged decoder saves."""
    return [
        Saving(encoder=encoder, literal=flops(found), computed=found.macs / 1e9, share_removed=found.share_removed)
        for encoder in MIT_SIZES
        for found in (count(encoder, num_classes, size=size),)
    ]


def count(encoder: str, num_classes: int = ADE20K_CLASSES, *, size: Size, **options: Any) -> Complexity:
    """Return the complexity of the paper's model with this encoder.

    ``options`` sets further fields of the ModelConfig.
    """
    return count_model(model_config(encoder, **options), num_classes, size)


def flops(found: Complexity) -> float:
    """Return what the paper calls Flops, in G: multiply-accumulates with the decoder as printed."""
    return found.macs_literal / 1e9


def encoder_name(printed: str) -> str:
    """Return this package's name of an encoder, given the name that the paper prints.

    >>> encoder_name("MiT-B0"), printed_name("mit_b0")
    ('mit_b0', 'MiT-B0')
    """
    return printed.lower().replace("-", "_")


def printed_name(encoder: str) -> str:
    """Return the name that the paper prints, given this package's name of an encoder."""
    return encoder.replace("mit_b", "MiT-B")

"""A page about a model's robustness: beside Table 5, over severities, by class, in pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from segformer.arrays import Array
from segformer.config import EvalConfig
from segformer.data.dataset import DataSource, Sample
from segformer.files import write_json
from segformer.inference.windows import predict_mask
from segformer.models.interfaces import Network
from segformer.models.segmenter import for_inference
from segformer.report import html as report
from segformer.robustness.cells import CLEAN, DRAWN, Cell, Corrupted, Robustness
from segformer.robustness.corruptions import NAMES
from segformer.robustness.table5 import HEADINGS, REPORTED, RULE, TABLE_5, figures_of, percent
from segformer.segmentation import Segmentation

PAGE, FIGURES = "report.html", "robustness.json"
SHOWN_SEVERITY = 3
WIDTH = 320  # of a picture, in pixels


def write_results(
    out: Path,
    result: Robustness,
    model: Network,
    source: DataSource,
    split: str,
    *,
    config: EvalConfig | None = None,
    frost: Path | None = None,
) -> Path:
    """Write robustness.json and report.html, with pictures of what ``model`` predicts; return the page's path.

    ``config`` and ``frost`` are what ``robustness`` was called with.
    """
    write_json(out / FIGURES, result.to_json())
    artist = Artist(model, config or model.card.eval, result.setting["seed"], frost)
    pictures = picture_rows(result, artist, source.samples(split))
    html = report.page(
        "Robustness",
        f"{source.name}, {split}: {result.setting['number of images']} images",
        report.section("At a glance", report.facts(headline(result))),
        report.section("Beside Table 5", *beside_the_paper(result)),
        report.section("Over severities", report.columns(*charts(result))),
        report.section("What is left", *degradation(result)),
        report.section("Classes", *classes(result, model)),
        report.section("Pictures", *pictures_of(pictures, model)),
        report.section("What was measured", report.key_values(setting_texts(result.setting))),
    )
    report.write_page(out / PAGE, html)
    return out / PAGE


def headline(result: Robustness) -> dict[str, str]:
    """Return the figures that are asked for first."""
    shares = {name: result.retained(result.miou(name)) for name in result.corruptions}
    known = {name: share for name, share in shares.items() if np.isfinite(share)}
    extremes = {}
    if known:
        hardest, easiest = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
        extremes[f"hardest: {words(hardest)}"] = f"{known[hardest]:.0%}"
        extremes[f"easiest: {words(easiest)}"] = f"{known[easiest]:.0%}"
    return {
        "mIoU, clean": f"{result.clean.miou:.3f}",
        "mIoU, corrupted": f"{result.corrupted_miou:.3f}",
        "retained": f"{result.retained(result.corrupted_miou):.0%}",
        **{f"retained, {group}": f"{result.retained(result.group_miou(group)):.0%}" for group in HEADINGS},
        **extremes,
    }


def beside_the_paper(result: Robustness) -> list[str]:
    """Set the model's row above the paper's, in the paper's order of columns."""
    intro = (
        f"mIoU in %. {RULE} The first row is this model, measured by this command on {result.setting['data']}; all "
        f"others are {REPORTED}, and compare only with a model measured on the val split of Cityscapes. "
        f"{frost_text(result)}"
    )
    rows = {"this model": figures_of(result), **TABLE_5}
    texts = {name: [percent(figure) for figure in figures] for name, figures in rows.items()}
    return [report.paragraph(intro), *in_halves(["method", "clean"], texts, list(NAMES))]


def in_halves(heads: Sequence[str], rows: Mapping[str, Sequence[str]], names: Sequence[str]) -> list[str]:
    """Set a table with a column a corruption as two, each as wide as a page; the columns before them in both."""
    fixed, middle = len(heads) - 1, -(-len(names) // 2)
    tables = []
    for part in (slice(0, middle), slice(middle, None)):
        body = [[label, *row[:fixed], *row[fixed:][part]] for label, row in rows.items()]
        tables.append(report.table([*heads, *map(words, names[part])], body))
    return tables


def frost_text(result: Robustness) -> str:
    """Say which ice was laid over the images."""
    if "frost" not in result.corruptions:
        return ""
    if result.setting["frost"] == DRAWN:
        return "Frost: ice was drawn, in place of the photographs of the published corruption."
    return "Frost: the photographs of the published corruption."


def charts(result: Robustness) -> list[str]:
    """Draw mIoU over severity, a chart a group; severity 0 is clean."""
    drawn = []
    for group, headings in HEADINGS.items():
        names = [name for name in headings if name in result.corruptions]
        series = {
            words(name): [
                (0.0, result.clean.miou),
                *((float(s), result.cells[name, s].miou) for s in result.severities if (name, s) in result.cells),
            ]
            for name in names
        }
        if series:
            drawn.append(report.line_chart(series, x_label=f"{group}: severity, 0 is clean", y_label="mIoU"))
    return drawn


def degradation(result: Robustness) -> list[str]:
    """Set what each corruption leaves of the clean mIoU, severity by severity."""
    clean = result.clean.miou

    def share(miou: float | None) -> str:
        return percent(None if miou is None or not clean > 0 else 100 * miou / clean)

    rows = []
    for name in result.corruptions:
        cells = [result.cells.get((name, severity)) for severity in result.severities]
        by_severity = [share(None if scores is None else scores.miou) for scores in cells]
        rows.append([words(name), *by_severity, share(result.miou(name))])
    rows.append(["all", *[""] * len(result.severities), share(result.corrupted_miou)])
    heads = ["corruption", *(f"severity {severity}" for severity in result.severities), "mean"]
    intro = f"Corrupted mIoU in % of the clean one, {clean:.3f}. {RULE}"
    return [report.paragraph(intro), report.table(heads, rows)]


def classes(result: Robustness, model: Network) -> list[str]:
    """Set which classes break under what: by group as bars, by corruption as numbers."""
    shares = {name: result.retained_iou(name) for name in result.corruptions}
    by_group = {
        group: np.mean([shares[name] for name in headings if name in shares], axis=0)
        for group, headings in HEADINGS.items()
        if any(name in shares for name in headings)
    }
    names, palette = result.clean.classes, model.card.palette
    texts = {label: [percent(100 * float(share[k])) for share in shares.values()] for k, label in enumerate(names)}
    return [
        report.paragraph("Share of a class's clean IoU that is left, on average over the severities that count."),
        report.class_table(names, palette, {"clean IoU": list(result.clean.iou), **by_group}),
        report.paragraph("The same in %, corruption by corruption."),
        *in_halves(["class"], texts, list(shares)),
    ]


@dataclass(frozen=True)
class Artist:
    """Pictures samples as a model was given them, with what it predicts."""

    model: Network
    config: EvalConfig
    seed: int
    frost: Path | None

    def draw(self, sample: Sample, cells: Sequence[Cell]) -> list[tuple[str, Array]]:
        """Each cell's image above its overlay, labelled."""
        fused, pictures = for_inference(self.model), []
        for cell in cells:
            shown = sample if cell == CLEAN else Corrupted(sample, *cell, self.seed, self.frost)
            pixels = shown.read()[0]
            image = torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C"))
            prediction = predict_mask(fused, image, self.config).cpu().numpy()
            label = "clean" if cell == CLEAN else f"{words(cell[0])} {cell[1]}"
            pictures.append((label, above_overlay(pixels, prediction, self.model)))
        return pictures


def picture_rows(
    result: Robustness, artist: Artist, samples: Sequence[Sample], count: int = 2
) -> list[tuple[str, list[tuple[str, Array]]]]:
    """Picture evenly spaced images under every corruption, and the first under the hardest at every severity."""
    measured = samples[: result.setting["number of images"]]
    places = np.linspace(0, len(measured) - 1, min(count, len(measured))).astype(int)
    severity = min(result.severities, key=lambda s: abs(s - SHOWN_SEVERITY), default=SHOWN_SEVERITY)
    cells = [CLEAN, *((name, severity) for name in result.corruptions)]
    rows = [(f"{measured[k].name}, severity {severity}", artist.draw(measured[k], cells)) for k in places]
    if len(result.severities) > 1:
        hardest = min(result.corruptions, key=lambda name: np.nan_to_num(result.miou(name), nan=np.inf))
        caption = f"{measured[0].name} under what is hardest for this model, {words(hardest)}"
        cells = [CLEAN, *((hardest, severity) for severity in result.severities)]
        rows.append((caption, artist.draw(measured[0], cells)))
    return rows


def above_overlay(pixels: Array, prediction: Array, model: Network) -> Array:
    """An image and, below it, the same with the predicted mask laid over it.  -> (2 h, w, 3)"""
    image = Image.fromarray(pixels)
    image.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    mask = Image.fromarray(prediction.astype(np.uint8)).resize(image.size, Image.Resampling.NEAREST)
    small = np.asarray(image)
    overlay = Segmentation(np.asarray(mask), model.card.classes, model.card.palette, small).overlay()
    return np.concatenate([small, overlay])


def pictures_of(rows: list[tuple[str, list[tuple[str, Array]]]], model: Network) -> list[str]:
    """Set the pictures below the classes' colours."""
    intro = "Each image above the mask that is predicted for it."
    return [report.paragraph(intro), report.legend(model.card.classes, model.card.palette), report.pictures(rows)]


def words(name: str) -> str:
    """The name of a corruption as it is read.

    >>> words("motion_blur")
    'motion blur'
    """
    return name.replace("_", " ").replace("jpeg", "JPEG").replace("gaussian", "Gaussian")


def setting_texts(setting: Mapping[str, Any]) -> dict[str, str]:
    """Write a setting a line a key."""
    return {
        key: ", ".join(f"{name} {part}" for name, part in value.items()) if isinstance(value, Mapping) else str(value)
        for key, value in setting.items()
    }

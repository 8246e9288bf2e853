"""The demo: train a model on drawn streets, evaluate it, predict with it, and write a report."""

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from segformer import report
from segformer.arrays import Array
from segformer.checkpoints.model_folder import load
from segformer.cli.run_progress import RunProgress
from segformer.cli.table import print_table
from segformer.data.dataset import DataSource
from segformer.data.sources.catalog import open_data
from segformer.evaluation.evaluate import score
from segformer.evaluation.metrics import Scores
from segformer.files import write_bytes
from segformer.inference.predictor import Predictor
from segformer.models.build import build_from_card
from segformer.models.segmenter import Segmenter
from segformer.recipes import RECIPES
from segformer.segmentation import colorize, png
from segformer.training.run_folder import read_metrics
from segformer.training.segmentation import train

NUM_PICTURES = 6
PictureRow = tuple[str, list[tuple[str, Array]]]
"""One row of pictures in the report: its caption, and each picture as (heading, pixels)."""


@dataclass(frozen=True, kw_only=True)
class DemoScores:
    """Measurements of the demo; the scores are on the test split, whose images are not used in training."""

    trained: Scores
    """Scores of the trained model."""
    untrained: Scores
    """Scores of a model with the same architecture and random weights."""
    num_scenes: int
    """Number of images in the test split."""
    minutes: float
    """Duration of the whole demo."""


def run_demo(out: Path, steps: int | None = None) -> Path:
    """Run the demo in the folder ``out`` and return the path of the report; an earlier demo in it is replaced."""
    started = time.perf_counter()
    recipe = RECIPES["toytown_b0"]
    if steps is not None:
        recipe = replace(recipe, train=replace(recipe.train, steps=steps))
    run_dir = out / "run"
    pictures = out / "predictions"
    for folder in (run_dir, pictures):
        shutil.rmtree(folder, ignore_errors=True)
    print(f"1/4  training {recipe.model.encoder} on toytown, {recipe.train.steps} steps")
    train(recipe, run_dir, reporter=RunProgress())
    source = open_data(recipe.data)
    print("2/4  evaluating on streets that were not used in training")
    model = load(run_dir / "best")
    trained = score(model, source, "test")
    torch.manual_seed(recipe.train.seed)
    untrained = score(build_from_card(model.card), source, "test")
    print("3/4  predicting")
    rows = [predict_scene(Predictor(model), source, index, pictures) for index in range(NUM_PICTURES)]
    print("4/4  writing the report")
    minutes = (time.perf_counter() - started) / 60
    num_scenes = len(source.samples("test"))
    scores = DemoScores(trained=trained, untrained=untrained, num_scenes=num_scenes, minutes=minutes)
    path = out / "report.html"
    report.write_page(path, demo_page(recipe.name, run_dir, model, scores, rows))
    print_outcome(out, scores)
    return path


def predict_scene(predictor: Predictor, source: DataSource, index: int, folder: Path) -> PictureRow:
    """Segment one image of the test split, write its mask and overlay, and return its pictures for the report."""
    sample = source.samples("test")[index]
    image, label = sample.read()
    result = predictor(image)
    write_bytes(folder / f"{sample.name}_image.png", png(image))
    result.save(folder / sample.name, ("mask", "overlay"))
    correct = float((result.mask == label).mean())
    pictures = [
        ("image", image),
        ("label", colorize(label, source.palette)),
        ("prediction", result.colors()),
        ("overlay", result.overlay()),
    ]
    return f"{sample.name}: {100 * correct:.1f} % of the pixels are correct", pictures


def demo_page(recipe: str, run_dir: Path, model: Segmenter, scores: DemoScores, rows: list[PictureRow]) -> str:
    """Return the report as HTML: main scores, pictures, scores of the classes, training curves."""
    metrics = read_metrics(run_dir)
    loss, miou = ([(line["step"], line[name]) for line in metrics if name in line] for name in ("loss", "val/mIoU"))
    card = model.card
    trained = scores.trained
    figures = {
        "mIoU": f"{trained.miou:.3f}",
        "mIoU untrained": f"{scores.untrained.miou:.3f}",
        "pixel accuracy": f"{trained.aacc:.3f}",
        "unseen scenes": str(scores.num_scenes),
        "minutes": f"{scores.minutes:.1f}",
    }
    columns = {
        "IoU": trained.iou.tolist(),
        "accuracy": trained.accuracy.tolist(),
        "pixels": trained.frequency.tolist(),
    }
    return report.page(
        "SegFormer on toytown",
        f"{card.model.encoder}, trained from random weights with the recipe {recipe} and tested on unseen streets",
        report.section("At a glance", report.facts(figures)),
        report.section("Pictures", report.legend(card.classes, card.palette), report.pictures(rows)),
        report.section("Classes", report.class_table(card.classes, card.palette, columns)),
        report.section(
            "Training",
            report.line_chart({"loss": loss}, x_label="step", y_label="loss", smooth=True),
            report.line_chart({"mIoU (val)": miou}, x_label="step", y_label="mIoU"),
        ),
    )


def print_outcome(out: Path, scores: DemoScores) -> None:
    """Print the scores, and the paths of the results."""
    trained = scores.trained
    best = out / "run" / "best"
    print_table(
        ("class", "IoU"), [(name, f"{iou:.3f}") for name, iou in zip(trained.classes, trained.iou, strict=True)]
    )
    print(
        f"mIoU {trained.miou:.4f} on unseen scenes, {scores.untrained.miou:.4f} untrained; {scores.minutes:.1f} minutes"
    )
    for what, where in (
        ("report", out / "report.html"),
        ("model", best),
        ("masks and overlays", out / "predictions"),
    ):
        print(f"  {what:<18} {where}")
    print(f"try it: segformer predict IMAGE.jpg --model {best} --out results")

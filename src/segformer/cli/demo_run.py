"""The whole journey on drawn streets: train, evaluate, predict, report."""

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from segformer import report
from segformer.checkpoints.model_folder import load
from segformer.data.dataset import DataSource
from segformer.data.sources.catalog import open_data
from segformer.evaluation.evaluate import score
from segformer.evaluation.metrics import Scores
from segformer.files import write_bytes
from segformer.inference.predictor import Predictor
from segformer.models.build import build_from_card
from segformer.recipes import RECIPES
from segformer.segmentation import Segmentation, colorize, png
from segformer.training.run import train
from segformer.training.run_folder import read_metrics

NUM_PICTURES = 6
Pixels = NDArray[np.uint8]


def run_demo(out: Path, steps: int | None = None) -> Path:
    """Do everything below ``out`` and return the report's path; an earlier demo's run there is replaced."""
    console, started = Console(), time.perf_counter()
    recipe = (
        RECIPES["toytown_b0"]
        if steps is None
        else replace(RECIPES["toytown_b0"], train=replace(RECIPES["toytown_b0"].train, steps=steps))
    )
    run_dir, pictures = out / "run", out / "predictions"
    for folder in (run_dir, pictures):
        shutil.rmtree(folder, ignore_errors=True)
    console.print(f"1/4  training {recipe.model.encoder} on toytown, {recipe.train.steps} steps")
    train(recipe, run_dir, console=console)
    source = open_data(recipe.data)
    console.print("2/4  evaluating on streets it has never seen")
    model = load(run_dir / "best")
    scores = score(model, source, "test")
    torch.manual_seed(recipe.train.seed)
    untrained = score(build_from_card(model.card), source, "test")
    console.print("3/4  predicting")
    rows = [predict_one(Predictor(model), source, index, pictures) for index in range(NUM_PICTURES)]
    console.print("4/4  writing the report")
    minutes = (time.perf_counter() - started) / 60
    path = out / "report.html"
    report.write_page(path, demo_page(recipe.name, run_dir, scores, untrained, rows, minutes))
    summarize(console, out, scores, untrained, minutes)
    return path


def predict_one(
    predictor: Predictor, source: DataSource, index: int, folder: Path
) -> tuple[str, list[tuple[str, Pixels]]]:
    """Segment a test scene, write image, mask and overlay, and return a row of pictures for the report."""
    sample = source.samples("test")[index]
    image, label = sample.read()
    result: Segmentation = predictor(image)
    write_bytes(folder / f"{sample.name}_image.png", png(image))
    result.save(folder / sample.name, ("mask", "overlay"))
    right = float((result.mask == label).mean())
    pictures = [
        ("image", image),
        ("label", colorize(label, source.palette)),
        ("prediction", result.colors()),
        ("overlay", result.overlay()),
    ]
    return f"{sample.name}: {100 * right:.1f} % of the pixels are right", pictures


def demo_page(recipe: str, run_dir: Path, scores: Scores, untrained: Scores, rows: list[Any], minutes: float) -> str:
    """Return the report: headline figures, curves, classes, pictures."""
    metrics = read_metrics(run_dir)
    card = load(run_dir / "best").card
    curve = {name: [(m["step"], m[name]) for m in metrics if name in m] for name in ("loss", "val/mIoU")}
    headline = {
        "mIoU": f"{scores.miou:.3f}",
        "mIoU untrained": f"{untrained.miou:.3f}",
        "pixel accuracy": f"{scores.aacc:.3f}",
        "unseen scenes": str(len(open_data(RECIPES["toytown_b0"].data).samples("test"))),
        "minutes": f"{minutes:.1f}",
    }
    columns = {"IoU": scores.iou.tolist(), "accuracy": scores.accuracy.tolist(), "pixels": scores.frequency.tolist()}
    return report.page(
        "SegFormer on toytown",
        f"{card.model.encoder} trained from random weights by the recipe {recipe}, tested on streets it has never seen",
        report.section("At a glance", report.facts(headline)),
        report.section("Pictures", report.legend(card.classes, card.palette), report.pictures(rows)),
        report.section("Classes", report.class_table(card.classes, card.palette, columns)),
        report.section(
            "Training",
            report.line_chart({"loss": curve["loss"]}, x_label="step", y_label="loss", smooth=True),
            report.line_chart({"mIoU (val)": curve["val/mIoU"]}, x_label="step", y_label="mIoU"),
        ),
    )


def summarize(console: Console, out: Path, scores: Scores, untrained: Scores, minutes: float) -> None:
    """Say what came out and where it lies."""
    for name, iou in zip(scores.classes, scores.iou, strict=True):
        console.print(f"  {name:<10} IoU {iou:.3f}")
    console.print(f"mIoU {scores.miou:.4f} on unseen scenes, {untrained.miou:.4f} untrained; {minutes:.1f} minutes")
    for what, where in (
        ("report", out / "report.html"),
        ("model", out / "run" / "best"),
        ("masks and overlays", out / "predictions"),
    ):
        console.print(f"  {what:<18} {where}", soft_wrap=True)
    console.print(f"try it: segformer predict IMAGE.jpg --model {out / 'run' / 'best'} --out results", soft_wrap=True)

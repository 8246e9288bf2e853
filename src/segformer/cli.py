"""The command line: one short function per command; heavy imports inside it."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import tyro
from tyro.conf import Positional, arg

from segformer.analysis.tables import NAMES as TABLES
from segformer.arguments import (
    ANY_MODEL,
    PROGRAM,
    DataArgument,
    DeviceArgument,
    ModelArgument,
    choose_device,
    set_threads,
)
from segformer.cli_robustness import robustness
from segformer.cli_training import Pretrain, Train, pretrain, train
from segformer.config import DataConfig, Output
from segformer.recipes import find_recipe

if TYPE_CHECKING:
    from segformer.models.segmenter import Segmenter


def predict(
    images: Annotated[Positional[tuple[str, ...]], arg(metavar="IMAGES...", help="Images, or folders of images.")],
    /,
    *,
    model: ModelArgument,
    out: Annotated[Path, arg(metavar="DIR", help="Where results go; made if it is missing.")],
    save: Annotated[tuple[Output, ...], arg(help="What to write for each image.")] = ("mask", "overlay"),
    device: DeviceArgument = "auto",
    threads: Annotated[int, arg(help="CPU threads; 0: as many as there are cores.")] = 0,
) -> None:
    """Segment images: writes DIR/<path>.png (class indices, with a palette), DIR/<path>_overlay.png, ...

    A damaged image is reported and the others are still segmented; the exit status is then 2.
    """
    from segformer.deploy.batch import plan_outputs
    from segformer.deploy.predictor import Predictor
    from segformer.terminal import progress_bar

    if not images:
        raise ValueError("predict needs at least one image or folder; see segformer predict --help")
    planned = plan_outputs(images, out, save)
    predictor = Predictor(load_model(model, device, threads), scores="scores" in save)
    failures = []
    with progress_bar() as bar:
        for path, target in bar.track(planned, description="predict"):
            try:
                predictor(path).save(target, save)
            except ValueError as error:
                failures.append(str(error))
    print(f"{len(planned) - len(failures)} of {len(planned)} images segmented into {out}")
    if failures:
        fail("\n".join(failures))


def evaluate(
    model: Annotated[Positional[str], arg(metavar="MODEL", help=ANY_MODEL)],
    /,
    *,
    data: DataArgument,
    split: Annotated[str, arg(help="Which images: train, val, test.")] = "val",
    masks: Annotated[str, arg(metavar="DIR", help="As data.masks in training.")] = "",
    relabel: Annotated[tuple[tuple[str, str], ...], arg(help="As data.relabel in training.")] = (),
    protocol: Annotated[
        Literal["own", "whole", "slide", "multiscale"], arg(help="Test protocol; own: the one the model carries.")
    ] = "own",
    limit: Annotated[int | None, arg(help="Only the first N images.")] = None,
    out: Annotated[Path | None, arg(metavar="DIR", help="Write scores.json there.")] = None,
    device: DeviceArgument = "auto",
    threads: Annotated[int, arg(help="CPU threads; 0: as many as there are cores.")] = 0,
) -> None:
    """Score a model on a data set: IoU and accuracy of each class, mIoU, mAcc, aAcc, at the labels' own size."""
    from segformer.data.catalog import open_data, with_data
    from segformer.evaluation.evaluate import evaluate as run
    from segformer.evaluation.evaluate import with_protocol
    from segformer.files import write_json
    from segformer.terminal import print_scores, progress_bar

    source = open_data(replace(with_data(DataConfig(), data), masks=masks, relabel=relabel))
    for note in source.notes:
        print(f"note: {note}", file=sys.stderr)
    loaded = load_model(model, device, threads)
    card = loaded.card
    config = card.eval if protocol == "own" else with_protocol(card.eval, protocol, card.preprocessing.short_side)
    with progress_bar() as bar:
        task = bar.add_task("evaluate", total=None)
        scores = run(
            loaded,
            source,
            split,
            config=config,
            limit=limit,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print_scores(scores, f"{model} on {source.name}, {split}")
    if out:
        write_json(out / "scores.json", scores.to_json())
    print(f"mIoU {scores.miou:.4f}")


def inspect(
    data: Annotated[Positional[str], arg(metavar="DATA", help="As --data: a folder, NAME=FOLDER, or toytown.")],
    /,
    *,
    out: Annotated[
        Path | None, arg(metavar="DIR", help="Write diagnosis.json and two sheets of pictures there.")
    ] = None,
    cheap: Annotated[bool, arg(help="Only what needs no decoding: files, sizes, kinds.")] = False,
    recipe: Annotated[str, arg(metavar="RECIPE", help="Whose step is measured.")] = "folder_b0",
    device: DeviceArgument = "auto",
) -> None:
    """Look at a data set before any training: what is wrong, how to mend it, what is in it, what a step will take.

    Ends with ready, or with exit status 2 where training would fail.
    """
    from rich.console import Console

    from segformer.data.doctor import inspect as run
    from segformer.data.doctor import show
    from segformer.data.sheets import recipe_for, write_sheets
    from segformer.files import write_json
    from segformer.terminal import costs, progress_bar

    base, place = find_recipe(recipe), choose_device(device)
    with progress_bar() as bar:
        task = bar.add_task("inspect", total=None)
        diagnosis = run(data, cheap=cheap, progress=lambda done, total: bar.update(task, completed=done, total=total))
    fitting = recipe_for(base, data, diagnosis)
    if out:
        write_json(out / "diagnosis.json", diagnosis.to_json())
        for path in write_sheets(fitting, out, augmented=diagnosis.ready):
            print(f"wrote {path}")
    show(diagnosis, Console(), costs(fitting, place) if diagnosis.ready and not cheap else ())
    if not diagnosis.ready:
        sys.exit(2)


def convert(
    source: Annotated[Positional[str], arg(metavar="SRC", help="Any checkpoint: file, folder or hub id.")],
    target: Annotated[Positional[Path], arg(metavar="DST", help="Folder to write; it must not exist.")],
    /,
    *,
    to: Annotated[Literal["segformer", "hf", "smp", "nvlabs"], arg(help="Layout to write.")] = "segformer",
) -> None:
    """Convert a checkpoint: reads NVlabs, mmsegmentation (encoder), transformers, SMP, TAO and model folders.

    Says what was left out and what the target can not hold.
    """
    from segformer.checkpoint import convert as run

    for note in run(source, target, to):
        print(f"note: {note}", file=sys.stderr)
    print(f"wrote {target} ({to})")


def info(model: Annotated[Positional[str], arg(metavar="MODEL", help=ANY_MODEL)], /) -> None:
    """Say what a model is: architecture, parameters, classes, preprocessing, test protocol, where it comes from."""
    from segformer.checkpoint import read_weights
    from segformer.terminal import print_info

    print_info(model, read_weights(model))


def demo(
    *,
    out: Annotated[Path, arg(metavar="DIR", help="Where everything goes; an earlier demo there is replaced.")] = Path(
        "demo"
    ),
    steps: Annotated[int | None, arg(help="Optimizer steps; None: the recipe's.")] = None,
) -> None:
    """Train, evaluate and predict on streets drawn on the spot, and write a report: minutes on two CPU cores."""
    from segformer.demo import run_demo

    run_demo(out, steps)


def reproduce(
    table: Annotated[Positional[Literal[TABLES]], arg(metavar="|".join(TABLES), help="Which one.")],  # type: ignore[valid-type]
    /,
) -> None:
    """Print a table of the paper beside what this package counts, and how to fill the columns that need data."""
    from segformer.analysis.tables import reproduce as run

    run(table)


COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": demo,
    "train": Train,
    "pretrain": Pretrain,
    "inspect": inspect,
    "evaluate": evaluate,
    "robustness": robustness,
    "predict": predict,
    "info": info,
    "convert": convert,
    "reproduce": reproduce,
}
TRAINING = {"train": train, "pretrain": pretrain}  # they read the recipe before the options
EXTRAS = {  # what a package that is not there is installed with
    **dict.fromkeys(("lightning_fabric", "torchmetrics", "tensorboard"), "train"),
    "tifffile": "tiff",
    "imagecodecs": "tiff",
    "datasets": "hub-data",
    "timm": "pretrain",
    "wandb": "wandb",
}
FLAGS = (tyro.conf.FlagCreatePairsOff,)
DESCRIPTION = """Semantic segmentation with SegFormer: train, evaluate, predict.

segformer demo shows everything on drawn streets. segformer COMMAND --help explains a command."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; what a user can mend is one line on standard error and exit status 2."""
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        if arguments == ["--version"]:
            print(f"{PROGRAM} {version(PROGRAM)}")
        elif arguments[0] in TRAINING:
            TRAINING[arguments[0]](arguments[1:])
        else:
            tyro.extras.subcommand_cli_from_dict(
                COMMANDS, args=arguments, prog=PROGRAM, description=DESCRIPTION, config=FLAGS, sort_subcommands=False
            )
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        fail(f"this needs the package {package}: pip install 'segformer[{EXTRAS[package]}]'")
    except (ValueError, OSError) as error:
        if os.environ.get("SEGFORMER_TRACEBACK"):
            raise
        fail(message_of(error))


def fail(message: str) -> NoReturn:
    """Print an error and exit with status 2."""
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr)
    sys.exit(2)


def message_of(error: Exception) -> str:
    """One line that says what went wrong, and with which file."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def load_model(folder: str, device: str, threads: int) -> "Segmenter":
    """Load a model on the chosen device."""
    from segformer.checkpoint import load

    set_threads(threads)
    return load(folder, choose_device(device))

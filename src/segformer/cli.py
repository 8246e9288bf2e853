"""The command line: one short function per command; heavy imports inside it."""

import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import tyro
from tyro.conf import Positional, arg

from segformer.analysis.tables import NAMES as TABLES
from segformer.arguments import (
    ANY_MODEL,
    PROGRAM,
    DeviceArgument,
    ModelArgument,
    choose_device,
    load_model,
)
from segformer.cli_erf import erf
from segformer.cli_evaluation import evaluate, submission
from segformer.cli_robustness import robustness
from segformer.cli_training import Pretrain, Train, pretrain, train
from segformer.config import Blend, Output, Precision
from segformer.recipes import find_recipe


def predict(
    images: Annotated[Positional[tuple[str, ...]], arg(metavar="IMAGES...", help="Images, or folders of images.")],
    /,
    *,
    model: ModelArgument,
    out: Annotated[Path, arg(metavar="DIR", help="Where results go; made if it is missing.")],
    save: Annotated[tuple[Output, ...], arg(help="What to write for each image.")] = ("mask", "overlay"),
    window: Annotated[
        int | None,
        arg(metavar="PIXELS", help="For images larger than memory: from disk to disk, by windows of this side."),
    ] = None,
    blend: Annotated[Blend, arg(help="How windows count where they overlap, with --window.")] = "gaussian",
    precision: Annotated[Precision, arg(help="What to compute in.")] = "fp32",
    compile: Annotated[bool, arg(help="Whether torch compiles the model: pays for many images of few sizes.")] = False,
    device: DeviceArgument = "auto",
    threads: Annotated[int, arg(help="CPU threads; 0: as many as there are cores.")] = 0,
) -> None:
    """Segment images: writes DIR/<path>.png (class indices, with a palette), DIR/<path>_overlay.png, ...

    A damaged image is reported and the others are still segmented; the exit status is then 2.  --window segments at
    an image's own resolution, writes the mask alone (a TIFF for a TIFF, with its georeference), and goes on with an
    image that was interrupted.
    """
    from segformer.config import EvalConfig
    from segformer.deploy.batch import plan_outputs, segment_files, segment_rasters
    from segformer.deploy.predictor import Predictor
    from segformer.terminal import progress_bar

    if not images:
        raise ValueError("predict needs at least one image or folder; see segformer predict --help")
    if window is not None and window < 32:
        raise ValueError(f"--window must be at least 32 pixels, got {window}")
    planned = plan_outputs(images, out, save if window is None else ("mask",))
    loaded = load_model(model, device, threads)
    with progress_bar() as bar:
        if window is None:
            predictor = Predictor(loaded, scores="scores" in save, precision=precision, compile=compile)
            outcomes = segment_files(predictor, planned, save)
        else:
            config = EvalConfig(crop=(window, window), blend=blend)
            outcomes = segment_rasters(loaded, planned, config, bar)
        failures = [wrong for wrong in bar.track(outcomes, len(planned), description="predict") if wrong]
    print(f"{len(planned) - len(failures)} of {len(planned)} images segmented into {out}")
    if failures:
        fail("\n".join(failures))


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
    from segformer.terminal import costs, progress_of

    base, place = find_recipe(recipe), choose_device(device)
    with progress_of("inspect") as progress:
        diagnosis = run(data, cheap=cheap, progress=progress)
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
    "submission": submission,
    "robustness": robustness,
    "predict": predict,
    "erf": erf,
    "info": info,
    "convert": convert,
    "reproduce": reproduce,
}
TRAINING = {"train": train, "pretrain": pretrain}  # they read the recipe before the options
EXTRAS = {  # what a package that is not there is installed with
    **dict.fromkeys(("lightning_fabric", "tensorboard"), "train"),
    "cv2": "robustness",
    "tifffile": "tiff",
    "imagecodecs": "tiff",
    "rasterio": "large",
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

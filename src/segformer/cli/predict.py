"""``segformer predict``: segment images, and write masks and overlays."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from segformer.cli.arguments import DeviceArgument, ModelArgument, ThreadsArgument, call, fail, load_model
from segformer.config import Blend, Output, Precision
from segformer.errors import UserError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

WINDOW = "For images that do not fit into memory: side of the windows in which they are read, segmented and written."
SMALLEST_WINDOW = 32  # pixels; no model accepts less


def run(arguments: Sequence[str]) -> None:
    """Parse the arguments and run the command."""
    call(predict, arguments)


def predict(
    images: Annotated[Positional[tuple[str, ...]], arg(metavar="IMAGES...", help="Images, or folders of images.")],
    /,
    *,
    model: ModelArgument,
    out: Annotated[Path, arg(metavar="DIR", help="Folder for the results; it is created if it does not exist.")],
    save: Annotated[tuple[Output, ...], arg(help="Kinds of files to write for each image.")] = ("mask", "overlay"),
    window: Annotated[int | None, arg(metavar="PIXELS", help=WINDOW)] = None,
    blend: Annotated[Blend, arg(help="Weighting of overlapping windows; used with --window.")] = "gaussian",
    precision: Annotated[Precision, arg(help="Number format of the computation.")] = "fp32",
    compile: Annotated[
        bool, arg(help="Compile the model; worth it for many images that have only a few different sizes.")
    ] = False,
    device: DeviceArgument = "auto",
    threads: ThreadsArgument = 0,
) -> None:
    """Segment images, and write DIR/<path>.png (class indices with a palette), DIR/<path>_overlay.png and others.

    If an image is damaged, it is reported, the others are still segmented, and the exit status is 2. With --window,
    images are segmented at their own resolution, only masks are written, and an interrupted image is resumed. The mask
    of a TIFF is then a TIFF with the same georeference.
    """
    from segformer.cli.terminal import progress_bar
    from segformer.config import EvalConfig
    from segformer.inference.image_files import plan_outputs, segment_files, segment_rasters
    from segformer.inference.predictor import Predictor

    if not images:
        raise UserError("predict needs at least one image or folder; see segformer predict --help")
    if window is not None and window < SMALLEST_WINDOW:
        raise UserError(f"--window must be at least {SMALLEST_WINDOW} pixels, got {window}")
    planned = plan_outputs(images, out, save if window is None else ("mask",))
    loaded = load_model(model, device, threads)
    with progress_bar() as bar:
        if window is None:
            predictor = Predictor(loaded, scores="scores" in save, precision=precision, compile=compile)
            outcomes = segment_files(predictor, planned, save)
        else:
            config = EvalConfig(crop=(window, window), blend=blend)
            outcomes = segment_rasters(loaded, planned, config, row_bars(bar))
        failures = [wrong for wrong in bar.track(outcomes, len(planned), description="predict") if wrong]
    print(f"{len(planned) - len(failures)} of {len(planned)} images segmented into {out}")
    if failures:
        fail("\n".join(failures))


def row_bars(bar: "Progress") -> Callable[[Path, int, int], None]:
    """Return a callback that shows, below the main bar, how many rows of the current image are done."""
    tasks: dict[Path, TaskID] = {}

    def advanced(path: Path, done: int, total: int) -> None:
        if path not in tasks:
            for finished in list(tasks):
                bar.remove_task(tasks.pop(finished))
            tasks[path] = bar.add_task(path.name, total=total)
        bar.update(tasks[path], completed=done)

    return advanced

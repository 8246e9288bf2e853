"""``segformer predict``: images in, masks out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from segformer.cli.arguments import DeviceArgument, ModelArgument, call, fail, load_model
from segformer.config import Blend, Output, Precision
from segformer.errors import UserError


def run(arguments: Sequence[str]) -> None:
    """Parse the arguments and run the command."""
    call(predict, arguments)


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
    from segformer.cli.terminal import progress_bar
    from segformer.config import EvalConfig
    from segformer.inference.image_files import plan_outputs, segment_files, segment_rasters
    from segformer.inference.predictor import Predictor

    if not images:
        raise UserError("predict needs at least one image or folder; see segformer predict --help")
    if window is not None and window < 32:
        raise UserError(f"--window must be at least 32 pixels, got {window}")
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

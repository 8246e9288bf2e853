"""Segment many image files: choose the paths of their results, and decode and write in the background."""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from segformer.config import EvalConfig, Output
from segformer.data.image_paths import TIFF_SUFFIXES, expand_inputs
from segformer.errors import UserError
from segformer.inference.predictor import Predictor
from segformer.inference.raster import segment_raster
from segformer.models.interfaces import Network
from segformer.segmentation import target_of

AHEAD = 2  # images that are decoded in advance, and results that may wait to be written

Planned = tuple[Path, Path]
"""Path of an image, and common path of its results, without the ending."""


def plan_outputs(inputs: Sequence[str | Path], out: Path, outputs: Sequence[str]) -> list[Planned]:
    """Return each image among the inputs (files or folders), with the path below ``out`` for its results.

    Results of a.jpg are named after a.  If a.jpg and a.png would then share a result, a_jpg and a_png are used instead.
    Raises a UserError if two images still share a result, or if a result would replace an input.
    """
    images = _images(inputs, out)
    bases = [relative.with_suffix("") for _, relative in images]
    for index in _clashing(bases, outputs):
        relative = images[index][1]
        bases[index] = relative.with_name(f"{relative.stem}_{relative.suffix[1:]}")
    if clashing := _clashing(bases, outputs):
        first, second = (images[index][0] for index in clashing[:2])
        raise UserError(f"{first} and {second} would get the same result below {out}; segment each with its own --out")
    sources = {path.resolve() for path, _ in images}
    for base in bases:
        for target in _targets(out / base, outputs):
            if target.resolve() in sources:
                raise _replacing(target)
    return [(path, out / base) for (path, _), base in zip(images, bases, strict=True)]


def _images(inputs: Sequence[str | Path], out: Path) -> list[tuple[Path, Path]]:
    """Return each image once, with its relative path.

    If ``out`` is inside an input folder, the files in ``out`` are skipped: they are results of an earlier run.
    """
    results = out.resolve()
    folders = [Path(given).resolve() for given in inputs if Path(given).is_dir()]
    found = {path.resolve(): (path, relative) for path, relative in expand_inputs(inputs)}
    if any(results != folder and results.is_relative_to(folder) for folder in folders):
        found = {resolved: image for resolved, image in found.items() if not resolved.is_relative_to(results)}
    return list(found.values())


def _targets(base: Path, outputs: Sequence[str]) -> list[Path]:
    return [target_of(base, output) for output in outputs]


def _clashing(bases: Sequence[Path], outputs: Sequence[str]) -> list[int]:
    """Return the indices of images that share a result with another image."""
    times = Counter(target for base in bases for target in _targets(base, outputs))
    return [i for i, base in enumerate(bases) if any(times[target] > 1 for target in _targets(base, outputs))]


def _replacing(target: Path) -> UserError:
    return UserError(f"{target}: the result would replace an input image; give another --out")


def segment_files(predictor: Predictor, planned: Sequence[Planned], outputs: Sequence[Output]) -> Iterator[str | None]:
    """Segment files while the next files are decoded and finished results are written.

    Yields one outcome for each file, in order: None, or the error message if the image cannot be segmented.  Raises a
    UserError if a result cannot be written.
    """
    with ThreadPoolExecutor(AHEAD) as readers, ThreadPoolExecutor(AHEAD) as writers:
        waiting = deque(readers.submit(predictor.read, path) for path, _ in planned[:AHEAD])
        rest = iter(planned[AHEAD:])
        written: deque[str | Future[Any]] = deque()
        for _, target in planned:
            image = waiting.popleft()
            waiting.extend(readers.submit(predictor.read, path) for path, _ in islice(rest, 1))
            try:
                result = predictor.segment(image.result())
            except UserError as error:
                written.append(str(error))
            else:
                written.append(writers.submit(result.save, target, outputs))
            if len(written) > AHEAD:
                yield _outcome(written.popleft())
        yield from map(_outcome, written)


def _outcome(written: "str | Future[Any]") -> str | None:
    if isinstance(written, str):
        return written
    written.result()
    return None


def segment_rasters(
    model: Network,
    planned: Sequence[Planned],
    config: EvalConfig,
    progress: Callable[[Path, int, int], None] | None = None,
) -> Iterator[str | None]:
    """Segment image files of any size, a few rows at a time; a TIFF gets a TIFF as its mask, any other image a PNG.

    Yields one outcome for each file, in order: None, or an error message.  ``progress`` is called with the path of the
    image, the number of finished rows, and the number of all rows.
    """
    for path, base in planned:
        target = base.with_name(base.name + (".tif" if path.suffix.lower() in TIFF_SUFFIXES else ".png"))
        if target.resolve() == path.resolve():
            raise _replacing(target)
        try:
            segment_raster(model, path, target, config, progress=partial(progress, path) if progress else None)
        except UserError as error:
            yield str(error)
        else:
            yield None

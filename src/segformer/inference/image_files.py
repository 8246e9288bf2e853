"""Where the results of many images go."""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from rich.progress import Progress, TaskID

from segformer.config import EvalConfig, Output
from segformer.data.image_paths import TIFF_SUFFIXES, expand_inputs
from segformer.errors import UserError
from segformer.inference.predictor import Predictor
from segformer.inference.raster import segment_raster
from segformer.models.interfaces import Network
from segformer.segmentation import target_of

AHEAD = 2  # images that are decoded ahead, and results that wait to be written


def plan_outputs(inputs: Sequence[str | Path], out: Path, outputs: Sequence[str]) -> list[tuple[Path, Path]]:
    """Images with the path, less its ending, that their results get below ``out``.

    a.jpg becomes a; where that would make two results the same file, all of those keep their ending (a_jpg, a_png).
    Raises a UserError where two inputs still share a result, or a result would replace an input.
    """
    results, folders = out.resolve(), [Path(given).resolve() for given in inputs if Path(given).is_dir()]
    found = {path.resolve(): (path, relative) for path, relative in expand_inputs(inputs)}
    if any(results != folder and results.is_relative_to(folder) for folder in folders):
        # The folder of results lies among the inputs: what an earlier run left there is none of them.
        found = {place: image for place, image in found.items() if not place.is_relative_to(results)}
    images = list(found.values())
    bases = [relative.with_suffix("") for _, relative in images]
    for index in _clashing(bases, outputs):
        relative = images[index][1]
        bases[index] = relative.with_name(f"{relative.stem}_{relative.suffix[1:]}")
    if clashing := _clashing(bases, outputs):
        first, second = (images[index][0] for index in clashing[:2])
        raise UserError(f"{first} and {second} would get the same result below {out}; segment them one after the other")
    sources = {path.resolve() for path, _ in images}
    for base in bases:
        for target in _targets(out / base, outputs):
            if target.resolve() in sources:
                raise UserError(f"{target}: the result would replace an input image; give another --out")
    return [(path, out / base) for (path, _), base in zip(images, bases, strict=True)]


def segment_files(
    predictor: Predictor, planned: Sequence[tuple[Path, Path]], outputs: Sequence[Output]
) -> Iterator[str | None]:
    """Segment files, while the next ones are decoded and the last ones written.

    ``planned`` as ``plan_outputs`` gives it.  Yields for each what is wrong with it, or None; anything but a damaged
    image, such as a full disk, is raised.
    """
    with ThreadPoolExecutor(AHEAD) as readers, ThreadPoolExecutor(AHEAD) as writers:
        waiting = deque(readers.submit(predictor.read, path) for path, _ in planned[:AHEAD])
        rest = iter(planned[AHEAD:])
        written: deque[Future[Any]] = deque()
        for _, target in planned:
            image = waiting.popleft()
            waiting.extend(readers.submit(predictor.read, path) for path, _ in islice(rest, 1))
            try:
                result = predictor.segment(image.result())
            except ValueError as error:
                written.append(Future())
                written[-1].set_exception(error)
            else:
                written.append(writers.submit(result.save, target, outputs))
            if len(written) > AHEAD:
                yield _wrong(written.popleft())
        yield from map(_wrong, written)


def _wrong(written: "Future[Any]") -> str | None:
    try:
        written.result()
    except ValueError as error:
        return str(error)
    return None


def segment_rasters(
    model: Network, planned: Sequence[tuple[Path, Path]], config: EvalConfig, bar: Progress
) -> Iterator[str | None]:
    """Segment images of any size from disk to disk, each with a bar of its rows; yields as ``segment_files`` does.

    A TIFF becomes one, all else a PNG.
    """
    for path, base in planned:
        target = base.with_name(base.name + (".tif" if path.suffix.lower() in TIFF_SUFFIXES else ".png"))
        if target.resolve() == path.resolve():
            raise UserError(f"{target}: the result would replace an input image; give another --out")
        task = bar.add_task(path.name, total=None)
        try:
            segment_raster(model, path, target, config, progress=partial(_advance, bar, task))
            yield None
        except ValueError as error:
            yield str(error)
        bar.remove_task(task)


def _advance(bar: Progress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)


def _targets(base: Path, outputs: Sequence[str]) -> list[Path]:
    return [target_of(base, output) for output in outputs]


def _clashing(bases: Sequence[Path], outputs: Sequence[str]) -> list[int]:
    """Return the indices of inputs of which some result is also that of another input."""
    times = Counter(target for base in bases for target in _targets(base, outputs))
    return [i for i, base in enumerate(bases) if any(times[target] > 1 for target in _targets(base, outputs))]

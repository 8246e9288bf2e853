"""Masks in the format that the test servers of Cityscapes and ADE20K expect."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from segformer.config import EvalConfig
from segformer.data.image_paths import list_images
from segformer.data.sources import SOURCES, cityscapes
from segformer.errors import UserError
from segformer.files import write_bytes
from segformer.inference.predictor import Predictor
from segformer.models.interfaces import Network
from segformer.resumable import OnProgress
from segformer.segmentation import png
from segformer.validation import check_choice


@dataclass(frozen=True, kw_only=True)
class Server:
    """Format of the masks that a test server expects."""

    ids: Sequence[int]
    """For each class of the data set, the value of the class's pixels in the PNG files."""
    image_ending: str
    """Ending of the file names of the test images."""


SERVERS = {
    "cityscapes": Server(ids=cityscapes.CLASS_IDS, image_ending=cityscapes.IMAGE_ENDING),
    "ade20k": Server(ids=range(1, 151), image_ending=".jpg"),
}
"""The test servers, by the name of their data set; ``--to`` takes these names."""


def write_submission(
    model: Network,
    images: Path,
    to: str,
    out: Path,
    *,
    config: EvalConfig | None = None,
    progress: OnProgress | None = None,
) -> int:
    """Segment every image below the folder ``images`` and write each mask as a PNG file into the folder ``out``.

    The masks contain the class ids that the test server of the data set ``to`` expects.  An existing mask is not
    computed again, so an interrupted submission can be resumed.  Returns the number of images.  Raises a UserError if
    the model's classes are not those of the data set, if there are no images, or if two images have the same name.
    """
    check_choice("--to", to, SERVERS)
    server = SERVERS[to]
    check_server_classes(model, to)
    targets = plan_masks(images, out, server)
    predictor = Predictor(model, config=config)
    ids = np.asarray(server.ids, dtype=np.uint8)
    for done, (path, target) in enumerate(targets.items(), start=1):
        if not target.is_file():
            mask = predictor(path).mask
            write_bytes(target, png(Image.fromarray(ids[mask])))
        if progress:
            progress(done, len(targets))
    return len(targets)


def check_server_classes(model: Network, to: str) -> None:
    """Raise a UserError unless the model has exactly the classes of the data set ``to``, in the same order."""
    ours, theirs = model.card.classes, SOURCES[to].classes
    assert theirs is not None
    if ours != theirs:
        raise UserError(
            f"a submission to {to} needs a model of its {len(theirs)} classes in this order: {', '.join(theirs[:3])}, "
            f"...; got {len(ours)} classes: {', '.join(ours[:3])}, ...; train a model on {to}"
        )


def plan_masks(images: Path, out: Path, server: Server) -> dict[Path, Path]:
    """Return a dict from the path of each test image below ``images`` to the path of its mask in ``out``.

    Raises a UserError if there are no images, or if two masks would have the same path.
    """
    if not images.is_dir():
        raise UserError(f"{images}: expected a folder of images, found no folder")
    found = [path for path in list_images(images) if path.name.endswith(server.image_ending)]
    if not found:
        raise UserError(
            f"{images}: no images named *{server.image_ending} in this folder; give the folder of the test images"
        )
    targets = {path: out / f"{path.stem}.png" for path in found}
    if len(set(targets.values())) < len(targets):
        names = [target.name for target in targets.values()]
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{images}: two images would have the mask {twice}; give the folder of a single split")
    return targets

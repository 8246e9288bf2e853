"""Files for the test servers of Cityscapes and ADE20K."""

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
    """What a test server expects."""

    ids: Sequence[int]
    """Id in the PNGs of each class of the data set."""
    image_ending: str
    """End of the names of the test images."""


SERVERS = {
    "cityscapes": Server(ids=cityscapes.CLASS_IDS, image_ending=cityscapes.IMAGE_ENDING),
    "ade20k": Server(ids=range(1, 151), image_ending=".jpg"),
}
"""The test servers by the name of their data set, which is also what ``--to`` takes."""


def write_submission(
    model: Network,
    images: Path,
    to: str,
    out: Path,
    *,
    config: EvalConfig | None = None,
    progress: OnProgress | None = None,
) -> int:
    """Segment every image below a folder, and write a PNG of the server's ids for each into the folder ``out``.

    Masks that exist already are kept, so an interrupted submission is resumed.  Returns the number of images.  Raises a
    UserError if the model has other classes than the data set, or if there are no images or two of the same name.
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
    """Raise a UserError if the model has other classes than the server's data set."""
    ours, theirs = model.card.classes, SOURCES[to].classes
    assert theirs is not None
    if ours != theirs:
        raise UserError(
            f"a submission to {to} needs a model of its {len(theirs)} classes in their order ({', '.join(theirs[:3])}, "
            f"...), got {len(ours)} ({', '.join(ours[:3])}, ...); train on {to}"
        )


def plan_masks(images: Path, out: Path, server: Server) -> dict[Path, Path]:
    """Return the path of the mask for each test image below a folder."""
    if not images.is_dir():
        raise UserError(f"{images}: expected a folder of images, found none")
    found = [path for path in list_images(images) if path.name.endswith(server.image_ending)]
    if not found:
        raise UserError(
            f"{images}: no images named *{server.image_ending} in this folder; give the folder of the test images"
        )
    targets = {path: out / f"{path.stem}.png" for path in found}
    if len(set(targets.values())) < len(targets):
        names = [target.name for target in targets.values()]
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{images}: two images would become {twice}; give the images of one split")
    return targets

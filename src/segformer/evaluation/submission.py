"""Files that the test servers of Cityscapes and ADE20K take."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from segformer.config import EvalConfig, check_choice
from segformer.data.image_paths import list_images
from segformer.data.images import read_image
from segformer.data.sources import ade20k, cityscapes
from segformer.errors import UserError
from segformer.files import write_bytes
from segformer.inference.samples import decoding_of
from segformer.inference.windows import predict_mask
from segformer.models.interfaces import Network
from segformer.models.segmenter import for_inference
from segformer.resumable import OnProgress
from segformer.segmentation import png


@dataclass(frozen=True)
class Server:
    """What a test server wants: its classes, and the id in a PNG that each has, in order."""

    classes: Sequence[str]
    ids: Sequence[int]
    endings: Sequence[str]
    """Of the images that it asks for."""


SERVERS = {
    "cityscapes": Server(cityscapes.CLASSES, cityscapes.CLASS_IDS, (cityscapes.IMAGE_ENDING,)),
    "ade20k": Server(ade20k.CLASSES, range(1, 151), (".jpg",)),
}


def write_submission(
    model: Network,
    images: Path,
    to: str,
    out: Path,
    *,
    config: EvalConfig | None = None,
    progress: OnProgress | None = None,
) -> int:
    """Segment every image below a folder into one PNG of the server's ids, its name kept, flat in ``out``.

    Cityscapes: label ids; ADE20K: class index + 1.  Masks that are there already are kept: an interrupted submission
    goes on.  Returns how many images there are.  Raises a UserError where the model's classes are not the server's,
    there are no images, or two have the same name.
    """
    check_choice("--to", to, SERVERS)
    server, config = SERVERS[to], config or model.card.eval
    ours, theirs = model.card.classes, server.classes
    if tuple(ours) != tuple(theirs):
        raise UserError(
            f"a submission to {to} needs a model of its {len(theirs)} classes in their order ({', '.join(theirs[:3])}, "
            f"...), got {len(ours)} ({', '.join(ours[:3])}, ...); train on {to}"
        )
    targets = plan(images, out, server)
    ids, fused = np.asarray(server.ids, dtype=np.uint8), for_inference(model)
    for done, (path, target) in enumerate(targets.items(), start=1):
        if not target.is_file():
            pixels = torch.from_numpy(read_image(path, decoding_of(model)).transpose(2, 0, 1).copy())
            write_bytes(target, png(Image.fromarray(ids[predict_mask(fused, pixels, config).cpu().numpy()])))
        if progress:
            progress(done, len(targets))
    return len(targets)


def plan(images: Path, out: Path, server: Server) -> dict[Path, Path]:
    """Where the mask of each image goes."""
    if not images.is_dir():
        raise UserError(f"{images}: expected a folder of images, found none")
    found = [path for path in list_images(images) if path.name.endswith(tuple(server.endings))]
    if not found:
        raise UserError(f"{images}: no images named *{server.endings[0]} in this folder; give that of the test images")
    targets = {path: out / f"{path.stem}.png" for path in found}
    if len(set(targets.values())) < len(targets):
        names = [target.name for target in targets.values()]
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{images}: two images would become {twice}; give the images of one split")
    return targets

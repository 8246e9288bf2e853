"""Write the npz shards of Cityscapes at 256 x 256 as the official folders, which the package reads.

    python -m benchmarks.cityscapes256 SHARDS FOLDER
    segformer train benchmarks/cityscapes256_b0.json --data cityscapes=FOLDER

A shard holds `split` and `number`, and for images and masks the encoded files end to end (`images`, `masks`) with the
position of each (`image_offsets`, `mask_offsets`).  Masks hold train ids.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

from benchmarks.machine import run_command_line
from segformer.errors import UserError

CITY = "all"
FOLDERS = {"image": ("leftImg8bit", "leftImg8bit"), "mask": ("gtFine", "gtFine_labelTrainIds")}
"""Top folder and end of the file names of each kind."""


def main(shards: Path, folder: Path, /) -> None:
    """Write leftImg8bit/<split>/all/*.png and gtFine/<split>/all/*_gtFine_labelTrainIds.png.

    Args:
        shards: Folder with cityscapes256_*.npz.
        folder: Folder to write into.
    """
    paths = sorted(shards.glob("cityscapes256_*.npz"))
    if not paths:
        raise UserError(f"{shards}: expected cityscapes256_*.npz, found none; give the folder of the shards")
    for path in track(paths, "shards"):
        write_shard(path, folder)


def write_shard(path: Path, folder: Path) -> None:
    with np.load(path) as shard:
        split, numbers = str(shard["split"]), shard["number"]
        parts = {kind: (shard[f"{kind}s"], shard[f"{kind}_offsets"]) for kind in FOLDERS}
    for kind, (data, offsets) in parts.items():
        top, ending = FOLDERS[kind]
        target = folder / top / split / CITY
        target.mkdir(parents=True, exist_ok=True)
        for index, number in enumerate(numbers):
            encoded = data[offsets[index] : offsets[index + 1]].tobytes()
            Image.open(io.BytesIO(encoded)).save(target / f"{CITY}_{int(number):06}_{ending}.png")


if __name__ == "__main__":
    run_command_line(main)

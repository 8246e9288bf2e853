"""Turn the npz shards of Cityscapes at 256 x 256 into the official folders, so that the package reads only those.

    python -m benchmarks.cityscapes256 SHARDS FOLDER
    segformer train benchmarks/cityscapes256_b0.json --data cityscapes=FOLDER

A shard holds `split`, `number`, and for `image` and `mask` the encoded files one after the other (`images`, `masks`)
with where each begins (`image_offsets`, `mask_offsets`).  Masks are train ids.
"""

import io
from pathlib import Path

import numpy as np
import tyro
from PIL import Image
from rich.progress import track

CITY = "all"


def main(shards: Path, folder: Path, /) -> None:
    """Write leftImg8bit/<split>/all/*.png and gtFine/<split>/all/*_gtFine_labelTrainIds.png below FOLDER."""
    paths = sorted(shards.glob("cityscapes256_*.npz"))
    if not paths:
        raise SystemExit(f"error: no cityscapes256_*.npz in {shards}")
    for path in track(paths, "shards"):
        with np.load(path) as shard:
            split, numbers = str(shard["split"]), shard["number"]
            parts = {kind: (shard[f"{kind}s"], shard[f"{kind}_offsets"]) for kind in ("image", "mask")}
        places = {"image": ("leftImg8bit", "leftImg8bit"), "mask": ("gtFine", "gtFine_labelTrainIds")}
        for kind, (data, offsets) in parts.items():
            home, ending = places[kind]
            target = folder / home / split / CITY
            target.mkdir(parents=True, exist_ok=True)
            for index, number in enumerate(numbers):
                encoded = data[offsets[index] : offsets[index + 1]].tobytes()
                Image.open(io.BytesIO(encoded)).save(target / f"{CITY}_{int(number):06}_{ending}.png")


if __name__ == "__main__":
    tyro.cli(main)

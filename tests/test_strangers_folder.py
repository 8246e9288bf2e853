"""A stranger's folder trains with one command, whatever it holds its masks in."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from conftest import CLASSES, PALETTE, draw_pair
from segformer import open_data
from segformer.cli.main import main
from segformer.config import IGNORE_INDEX, DataConfig
from segformer.data.dataset import DataSource
from segformer.data.sources.catalog import with_data

SPLITS = ["train"] * 9 + ["val"] * 3
SIZE = (48, 64)
SMALL = ["--data.resize", "64", "48", "--data.crop", "40", "48", "--model.decoder-channels", "32"]
SMALL += ["--preprocessing.long-side", "64", "--preprocessing.short-side", "48", "--train.workers", "0"]
SHORT = ["--train.steps", "2", "--train.batch-size", "2", "--train.log-every", "1"]
RIM = 254  # in an expected mask: within 1.5 pixels of a circle, of which a polygon is drawn


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """More gain nothing on crops so small, and cost a lot where the cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class Folder:
    """What must be found in a folder: its classes, and the class of every pixel by the name of the sample."""

    classes: list[str]
    masks: dict[str, np.ndarray]
    labels: Path | None = None
    """Where masks lie, if the user has to say it."""


def drawn() -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """(split, name, image, mask) of a dozen pairs."""
    for index, split in enumerate(SPLITS):
        yield split, f"{index:03}", *draw_pair(index, SIZE)


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def covered(mask: np.ndarray) -> np.ndarray:
    """The mask as polygons can say it: what nothing covers is the background, nothing is ignored."""
    return np.where(mask == IGNORE_INDEX, 0, mask)


def outlines(mask: np.ndarray, index: int) -> list[np.ndarray]:
    """Polygons (N, 2) around the regions of a class, traced by OpenCV."""
    found, _ = cv2.findContours((mask == index).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [contour[:, 0] for contour in found]


def color_masks(root: Path) -> Folder:
    """Photos; colors that a palette file names, one of them void."""
    colors = np.zeros((256, 3), dtype=np.uint8)  # void is black
    colors[: len(PALETTE)] = PALETTE
    masks = {}
    for split, name, image, mask in drawn():
        write(root / "images" / split / f"{name}.jpg", image)
        write(root / "masks" / split / f"{name}.png", colors[mask])
        masks[name] = mask
    lines = [f"{name},{r},{g},{b}" for name, (r, g, b) in zip(CLASSES, PALETTE, strict=True)]
    (root / "class_dict.csv").write_text("\n".join(["name,r,g,b", *lines, "void,0,0,0"]))
    return Folder(CLASSES, masks)


def labelme(root: Path) -> Folder:
    """JSON beside each image: polygons around discs, squares as rectangles, and a circle on top."""
    masks = {}
    for split, name, image, mask in drawn():
        write(root / "images" / split / f"{name}.jpg", image)
        expected = covered(mask)
        shapes = [("disc", "polygon", outline.tolist()) for outline in outlines(expected, 1)]
        if (expected == 2).any():
            rows, columns = (places.tolist() for places in np.nonzero(expected == 2))
            corners = [[min(columns), min(rows)], [max(columns), max(rows)]]
            shapes.append(("square", "rectangle", corners))
        shapes.append(("ball", "circle", [[46, 30], [46, 18]]))
        y, x = np.mgrid[: SIZE[0], : SIZE[1]]
        distance = np.hypot(x - 46, y - 30) - 12
        masks[name] = np.where(np.abs(distance) < 1.5, RIM, np.where(distance < 0, 1, expected + (expected > 0)))
        rows = [
            {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}}
            for label, kind, points in shapes
        ]
        values = {"version": "5.4.1", "flags": {}, "shapes": rows, "imagePath": f"{name}.jpg", "imageData": None}
        values |= {"imageHeight": SIZE[0], "imageWidth": SIZE[1]}
        (root / "images" / split / f"{name}.json").write_text(json.dumps(values))
    return Folder(["background", "ball", "disc", "square"], masks)


def coco(root: Path) -> Folder:
    """One JSON a split, with ids that start anywhere; the ground, named last, lies beneath all."""
    masks = {}
    files: dict[str, dict[str, list[Any]]] = {}
    names = {90: "ground", 12: "disc", 34: "square"}
    categories = [{"id": number, "name": name, "supercategory": "thing"} for number, name in names.items()]
    ground = np.array([[0, 24], [63, 24], [63, 47], [0, 47]], dtype=np.int32)
    for split, name, image, mask in drawn():
        write(root / "images" / split / f"{name}.jpg", image)
        mask = covered(mask)
        values = files.setdefault(split, {"images": [], "annotations": [], "categories": categories})
        number = 1000 + len(values["images"])
        values["images"].append({"id": number, "file_name": f"{name}.jpg", "height": SIZE[0], "width": SIZE[1]})
        polygons = [
            *((12, polygon) for polygon in outlines(mask, 1)),
            *((34, polygon) for polygon in outlines(mask, 2)),
        ]
        for category, polygon in [*polygons, (90, ground)]:
            row = {"id": len(values["annotations"]), "image_id": number, "category_id": category, "iscrowd": 0}
            row |= {"segmentation": [polygon.flatten().tolist()], "bbox": list(cv2.boundingRect(polygon))}
            values["annotations"].append(row | {"area": cv2.contourArea(polygon)})
        lower = np.arange(SIZE[0])[:, None] >= 24
        masks[name] = np.where(lower & (mask == 0), 3, mask)
    (root / "annotations").mkdir()
    for split, values in files.items():
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(values))
    return Folder(["background", "disc", "square", "ground"], masks)


def masks_elsewhere(root: Path) -> Folder:
    """Images by split and place, masks in another tree."""
    labels = root.parent / "labels"
    masks = {}
    for split, name, image, mask in drawn():
        place = f"{'north' if int(name) % 2 else 'south'}/{name}"
        write(root / "images" / split / f"{place}.png", image)
        write(labels / split / f"{place}.png", mask)
        masks[place] = mask
    (root / "dataset.json").write_text(json.dumps({"classes": CLASSES}))
    return Folder(CLASSES, masks, labels)


def bare(root: Path) -> Folder:
    """No splits, and nothing that names the classes."""
    masks = {}
    for _, name, image, mask in drawn():
        write(root / "images" / f"{name}.png", image)
        write(root / "masks" / f"{name}.png", mask)
        masks[name] = mask
    return Folder(["class_0", "class_1", "class_2"], masks)


def binary(root: Path) -> Folder:
    """0 and 1, as bytes or as bits."""
    masks = {}
    for split, name, image, mask in drawn():
        thing = covered(mask) > 0
        write(root / "images" / split / f"{name}.jpg", image)
        write(root / "masks" / split / f"{name}.png", thing if int(name) % 2 else thing.astype(np.uint8))
        masks[name] = thing
    return Folder(["class_0", "class_1"], masks)


def odd_names(root: Path, suffix: str = ".png") -> Folder:
    """Spaces, umlauts and dots in names; images that end in upper case."""
    masks = {}
    for split, name, image, mask in drawn():
        odd = f"Straße in Köln ({name}.Bild)"
        write(root / "images" / split / f"{odd}{'.JPG' if int(name) % 2 else '.PNG'}", image)
        write(root / "masks" / split / f"{odd}{suffix}", mask)
        masks[odd] = mask
    (root / "dataset.json").write_text(json.dumps({"classes": CLASSES}))
    return Folder(CLASSES, masks)


def upper_case_masks(root: Path) -> Folder:
    """The same, with masks that end in upper case too."""
    return odd_names(root, ".PNG")


FOLDERS = [color_masks, labelme, coco, masks_elsewhere, bare, binary, odd_names, upper_case_masks]


@pytest.mark.parametrize("build", FOLDERS, ids=lambda build: build.__name__)
def test_a_strangers_folder_trains_with_one_command(build: Callable[[Path], Folder], tmp_path: Path) -> None:
    root, run = tmp_path / "their data", tmp_path / "run"
    folder = build(root)
    masks = ["--data.masks", str(folder.labels)] if folder.labels else []
    main(["train", "--data", str(root), *masks, "--run-dir", str(run), *SMALL, *SHORT])  # a failure would exit
    assert json.loads((run / "best" / "config.json").read_text())["classes"] == folder.classes
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 2
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    assert 0 <= lines[-1]["val/mIoU"] <= 1
    check_masks(open_data(replace(with_data(DataConfig(), str(root)), masks=str(folder.labels or ""))), folder)


def check_masks(source: DataSource, folder: Folder) -> None:
    """What a data set reads is what was drawn, pixel by pixel, each pair once."""
    assert list(source.classes) == folder.classes
    assert set(source.splits) == {"train", "val"}
    assert all(source.splits.values())
    samples = [sample for split in source.splits.values() for sample in split]
    assert sorted(sample.name for sample in samples) == sorted(folder.masks)
    for sample in samples:
        image, raw = sample.read()
        assert image.shape == (*SIZE, 3)
        expected = folder.masks[sample.name]
        found = source.table.apply(raw, sample.name)
        assert np.array_equal(np.where(expected == RIM, RIM, found), expected), sample.name

import io
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from rich.console import Console

from conftest import SHARED_DATA, write_folder
from segformer.config import DataConfig, Preprocessing
from segformer.data.doctor.diagnosis import Diagnosis, inspect, show
from segformer.data.doctor.faults import Look, close_pairs
from segformer.data.doctor.sheets import augmented_sheet, contact_sheet
from segformer.data.sources.folder import open_source
from segformer.data.sources.toytown import open_source as open_toytown
from segformer.errors import UserError
from segformer.recipes import find_recipe

CHEAP = "unreadable_image unreadable_mask image_without_mask mask_without_image size_mismatch exif_rotation"
CHEAP += " color_mask jpeg_mask mixed_channels"


@pytest.fixture(params=["dubai6_mini", "drawn"])
def clean(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A data set without faults: a copy of real tiles, or drawn."""
    if request.param == "drawn":
        return write_folder(tmp_path / "data", {"train": 8, "val": 4}, size=(96, 128))
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA}")
    return Path(shutil.copytree(SHARED_DATA / "dubai6_mini", tmp_path / "data"))


def image_of(root: Path, index: int = 2, split: str = "train") -> Path:
    return sorted((root / "images" / split).iterdir())[index]


def mask_of(root: Path, index: int = 2, split: str = "train") -> Path:
    return sorted((root / "masks" / split).iterdir())[index]


def remap(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    Image.fromarray(change(np.asarray(Image.open(path))).astype(np.uint8)).save(path)


def remap_all(root: Path, change: Callable[[np.ndarray], np.ndarray], split: str = "*") -> list[Path]:
    paths = sorted(root.glob(f"masks/{split}/*.png"))
    for path in paths:
        remap(path, change)
    return paths


def description(root: Path) -> dict:
    return json.loads((root / "dataset.json").read_text())


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def unreadable_image(root: Path) -> list[Path]:
    truncate(image_of(root))
    return [image_of(root)]


def unreadable_mask(root: Path) -> list[Path]:
    mask_of(root).write_text("no image")
    return [mask_of(root)]


def image_without_mask(root: Path) -> list[Path]:
    mask_of(root).unlink()
    return [image_of(root)]


def mask_without_image(root: Path) -> list[Path]:
    image, mask = image_of(root), mask_of(root)
    for listing in root.glob("train.txt"):
        listing.write_text(listing.read_text().replace(f"{image.stem}\n", ""))
    image.unlink()
    return [mask]


def size_mismatch(root: Path) -> list[Path]:
    remap(mask_of(root), lambda mask: mask[:, :-8])
    return [mask_of(root)]


def out_of_range(root: Path) -> list[Path]:
    remap(mask_of(root), lambda mask: np.where(np.indices(mask.shape).sum(0) < 40, 77, mask))
    return [mask_of(root)]


def binary_mask(root: Path) -> list[Path]:
    (root / "dataset.json").write_text(json.dumps({"classes": ["background", "thing"], "ignore_index": 255}))
    return remap_all(root, lambda mask: np.where(mask == 1, 255, 0))


def off_by_one(root: Path) -> list[Path]:
    return remap_all(root, lambda mask: np.where(mask == 255, 255, mask + 1))


def ignored_mask(root: Path) -> list[Path]:
    remap(mask_of(root), lambda mask: np.full_like(mask, 255))
    return [mask_of(root)]


def absent_class(root: Path) -> list[Path]:
    remap_all(root, lambda mask: np.where(mask == 2, 0, mask), "train")
    return []


def color_mask(root: Path) -> list[Path]:
    colors = np.zeros((256, 3), dtype=np.uint8)
    colors[: len(description(root)["palette"])] = description(root)["palette"]
    remap(mask_of(root), lambda mask: colors[mask])
    return [mask_of(root)]


def jpeg_mask(root: Path) -> list[Path]:
    path = mask_of(root)
    jpeg = path.with_suffix(".jpg")
    Image.fromarray(np.asarray(Image.open(path))).save(jpeg)
    path.unlink()
    return [jpeg]


def jpeg_saved_as_png(root: Path) -> list[Path]:
    """With ignored spots, around which a JPEG writes values of its own."""
    spots = Image.fromarray(np.asarray(Image.open(mask_of(root, 0))))
    ImageDraw.Draw(spots).ellipse((20, 20, 70, 60), 255)
    buffer = io.BytesIO()
    spots.save(buffer, "JPEG", quality=75)
    Image.open(buffer).save(mask_of(root, 0))
    return [mask_of(root, 0)]


def duplicate(root: Path) -> list[Path]:
    copies = [path.with_stem("zz_copy") for path in (image_of(root), mask_of(root))]
    for path, copy in zip((image_of(root), mask_of(root)), copies, strict=True):
        shutil.copy(path, copy)
    for listing in root.glob("train.txt"):
        listing.write_text(listing.read_text() + "zz_copy\n")
    return [image_of(root), copies[0]]


def near_duplicate(root: Path) -> list[Path]:
    image, mask = image_of(root), mask_of(root)
    other = root / "images" / "val" / "zz_near.jpg"
    smaller = tuple(side - 8 for side in Image.open(image).size)
    Image.open(image).resize(smaller, Image.Resampling.BILINEAR).save(other, quality=80)
    Image.open(mask).resize(smaller, Image.Resampling.NEAREST).save(root / "masks" / "val" / "zz_near.png")
    for listing in root.glob("val.txt"):
        listing.write_text(listing.read_text() + "zz_near\n")
    return [image, other]


def mixed_channels(root: Path) -> list[Path]:
    Image.open(image_of(root)).convert("L").save(image_of(root))
    return [image_of(root)]


def exif_rotation(root: Path, orientation: int = 6) -> list[Path]:
    """A photo taken upright whose mask was drawn on the pixels as they are stored."""
    path = image_of(root)
    box = (0, 0, Image.open(path).width, Image.open(path).height - 32)
    remap(mask_of(root), lambda mask: mask[:-32])
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.open(path).crop(box).save(path, exif=exif)
    return [path]


def exif_half_turn(root: Path) -> list[Path]:
    """Here the sizes can not tell, and the borders must."""
    return exif_rotation(root, orientation=3)


FAULTS = [
    unreadable_image,
    unreadable_mask,
    image_without_mask,
    mask_without_image,
    size_mismatch,
    exif_rotation,
    exif_half_turn,
    color_mask,
    jpeg_mask,
    jpeg_saved_as_png,
    binary_mask,
    off_by_one,
    out_of_range,
    ignored_mask,
    absent_class,
    duplicate,
    near_duplicate,
    mixed_channels,
]
KINDS = {"exif_half_turn": "exif_rotation", "jpeg_saved_as_png": "jpeg_mask"}
WARNINGS = {"mask_without_image", "ignored_mask", "absent_class", "duplicate", "near_duplicate", "mixed_channels"}
WARNINGS.add("exif_half_turn")


def report(diagnosis: Diagnosis) -> str:
    console = Console(file=io.StringIO(), width=100)
    show(diagnosis, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_clean_data_set_is_ready(clean):
    for cheap in (False, True):
        diagnosis = inspect(clean, cheap=cheap)
        assert diagnosis.ready
        assert diagnosis.findings == ()
        assert report(diagnosis).splitlines()[-1].strip() == "ready"


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_each_fault_is_found_alone_with_its_files(clean, plant):
    name = plant.__name__
    files = plant(clean)
    diagnosis = inspect(clean)
    (finding,) = {finding.kind: finding for finding in diagnosis.findings}.values()
    assert finding.kind == KINDS.get(name, name)
    found = [file for finding in diagnosis.findings for file in finding.files]
    assert sorted(found) == sorted(map(str, files))
    assert diagnosis.ready == (name in WARNINGS)
    assert finding.problem
    assert finding.fix
    text = " ".join(report(diagnosis).split())
    assert all(path.name in text for path in files[:3])
    assert text.endswith("ready" if name in WARNINGS else "then inspect again")


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_the_cheap_look_finds_what_headers_tell_and_nothing_else(clean, plant):
    plant(clean)
    kinds = {finding.kind for finding in inspect(clean, cheap=True).findings}
    name = KINDS.get(plant.__name__, plant.__name__)
    damaged = plant in (unreadable_image, exif_half_turn, jpeg_saved_as_png)  # only decoding shows it
    assert kinds == ({name} if name in CHEAP.split() and not damaged else set())


def test_ready_means_that_the_folder_opens_and_every_sample_can_be_read(clean):
    for plant in (mask_without_image, ignored_mask, absent_class, duplicate, mixed_channels):
        plant(clean)
    assert inspect(clean).ready
    source = open_source(str(clean))
    for split in source.splits:
        for sample in source.samples(split):
            source.table.apply(sample.read()[1], sample.name)


def test_faults_do_not_hide_one_another(clean):
    truncate(image_of(clean, 0))
    mask_of(clean, 1).write_text("no image")
    remap(mask_of(clean, 3), lambda mask: mask[:, :-8])
    remap(mask_of(clean, 4), lambda mask: mask * 0 + 255)
    remap(mask_of(clean, 5), lambda mask: np.where(mask == 0, 77, mask))
    Image.open(image_of(clean, 6)).convert("L").save(image_of(clean, 6))
    color_mask(clean)
    mask_of(clean, 0, "val").unlink()
    expected = "unreadable_image unreadable_mask size_mismatch out_of_range color_mask image_without_mask"
    findings = inspect(clean).findings
    assert {f.kind for f in findings if f.severity == "error"} == set(expected.split())
    assert {f.kind for f in findings if f.severity == "warning"} == {"ignored_mask", "mixed_channels"}


@pytest.mark.parametrize("plant", [binary_mask, off_by_one])
def test_the_command_of_a_fix_fixes_it(small_data, plant):
    plant(small_data)
    for finding in inspect(small_data).findings:
        program, *arguments = shlex.split(finding.command)
        assert program == "python"
        files = [str(path) for pattern in arguments[2:] for path in sorted(Path("/").glob(pattern.lstrip("/")))]
        subprocess.run([sys.executable, *arguments[:2], *files], check=True)
    assert inspect(small_data).findings == ()


def test_files_of_other_kinds_are_ignored(small_data):
    for folder in (small_data, small_data / "images", small_data / "images" / "train", small_data / "masks" / "val"):
        (folder / "Thumbs.db").write_bytes(b"\0\1\2")
        (folder / "notes.txt").write_text("hello")
        (folder / ".DS_Store").write_bytes(b"")
        (folder / "._000.png").write_bytes(b"resource fork")
    assert inspect(small_data).findings == ()


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".png", ".webp"])
def test_a_turned_photo_with_a_turned_mask_is_no_fault(small_data, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(image_of(small_data))
    image.load()
    image_of(small_data).unlink()
    image.save(small_data / "images" / "train" / f"002{suffix}", exif=exif)
    remap(mask_of(small_data), lambda mask: np.rot90(mask, -1))
    for cheap in (False, True):
        assert inspect(small_data, cheap=cheap).findings == ()


def test_toytown_is_ready():
    source = open_toytown("")
    source = replace(source, splits={name: samples[:6] for name, samples in source.splits.items()})
    calls: list[tuple[int, int]] = []
    diagnosis = inspect(source, progress=lambda done, total: calls.append((done, total)))
    assert diagnosis.ready
    assert {finding.kind for finding in diagnosis.findings} <= {"absent_class"}
    assert calls == [(k, 18) for k in range(1, 19)]
    assert inspect("toytown", cheap=True).findings == ()


def test_labels_of_a_drawn_sample_are_checked():
    source = open_toytown("")
    short = replace(source, classes=source.classes[:4], table=type(source.table).identity(4))
    short = replace(short, splits={name: samples[:2] for name, samples in short.splits.items()})
    (finding,) = inspect(short).errors
    assert finding.kind == "out_of_range"
    assert finding.files[0] == "scene_000000"


def test_statistics_worked_by_hand(tmp_path):
    root = write_folder(tmp_path / "data", {"train": 2, "val": 2})
    mask = np.zeros((10, 20), dtype=np.uint8)
    mask[0] = 255
    mask[1, :16], mask[1, 16] = 1, 2  # 163, 16 and 1 of 180 pixels
    for path in root.glob("masks/*/*.png"):
        Image.fromarray(mask).save(path)
        image = root / "images" / path.parent.name / path.name
        Image.open(image).crop((0, 0, 20, 10)).save(image)
    diagnosis = inspect(root)
    train = diagnosis.splits["train"]
    assert (train.images, train.sizes, train.channels) == (2, {"10 x 20": 2}, {"RGB": 2})
    assert (train.pixels, train.ignored) == ((326, 32, 2), 40)
    assert diagnosis.rare == ("square",)
    raw = np.array([163, 16, 1]) ** -0.5
    assert diagnosis.class_weights == pytest.approx(raw / raw.mean(), abs=0.005)
    assert diagnosis.suggestions == ("--train.class-weights 0.18 0.56 2.26", "--data.rare-crop 0.5")
    pixels = np.concatenate([np.asarray(Image.open(p)).reshape(-1, 3) for p in root.glob("images/train/*.png")])
    assert diagnosis.mean == pytest.approx(pixels.mean(0))
    assert diagnosis.std == pytest.approx(pixels.std(0))
    assert not diagnosis.raw
    assert json.loads(json.dumps(diagnosis.to_json()))["ready"] is True


def test_without_a_description_the_classes_are_counted(small_data):
    (small_data / "dataset.json").unlink()
    assert inspect(small_data).classes == ("class_0", "class_1", "class_2")
    assert inspect(small_data).findings == ()
    off_by_one(small_data)
    assert [(f.kind, f.severity) for f in inspect(small_data).findings] == [("off_by_one", "warning")] * 2


def test_labels_that_count_from_one_in_one_split_only(small_data):
    files = remap_all(small_data, lambda mask: np.where(mask == 255, 255, mask + 1), "val")
    (finding,) = inspect(small_data).findings
    assert (finding.kind, finding.severity, finding.files) == ("off_by_one", "error", tuple(map(str, files)))


def test_masks_with_a_suffix_are_told_by_one_command(small_data):
    for path in small_data.glob("masks/*/*.png"):
        path.rename(path.with_stem(f"{path.stem}_mask"))
    error, warning = inspect(small_data).findings
    assert (error.kind, warning.kind) == ("image_without_mask", "mask_without_image")
    assert "'_mask'" in error.fix
    assert error.command.startswith("for f in ")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: shutil.rmtree(root / "masks"), "no masks/"),
        (lambda root: shutil.rmtree(root / "images" / "val"), "no images in the split 'val'"),
        (lambda root: (root / "dataset.json").write_text("{"), "expected JSON"),
        (lambda root: (root / "train.txt").write_text("000\nnowhere\n"), "nowhere"),
        (lambda root: shutil.copy(image_of(root), image_of(root).with_suffix(".bmp")), "share a mask"),
        (lambda root: shutil.copy(image_of(root), root / "images"), "beside the folders"),
    ],
)
def test_a_layout_at_fault_is_an_error(small_data, spoil, message):
    spoil(small_data)
    for cheap in (False, True):
        diagnosis = inspect(small_data, cheap=cheap)
        assert not diagnosis.ready
        assert any(message in finding.problem for finding in diagnosis.errors)


def test_a_folder_without_splits_or_with_lists(small_data):
    for kind in ("images", "masks"):
        for path in sorted(small_data.glob(f"{kind}/*/*.png")):
            path.rename(small_data / kind / f"{path.parent.name}_{path.name}")
        for split in ("train", "val"):
            (small_data / kind / split).rmdir()
    found = inspect(small_data)
    assert found.ready
    assert {name: split.images for name, split in found.splits.items()} == {
        name: len(samples) for name, samples in open_source(str(small_data)).splits.items()
    }
    (small_data / "train.txt").write_text("train_000\ntrain_001\n")
    (small_data / "val.txt").write_text("val_000\n")
    shutil.copy(small_data / "masks" / "val_000.png", small_data / "masks" / "alone.png")
    found = inspect(small_data)
    assert {name: split.images for name, split in found.splits.items()} == {"train": 2, "val": 1}
    assert [f.files for f in found.findings] == [(str(small_data / "masks" / "alone.png"),)]


def test_a_missing_folder_and_the_splits_of_a_config(small_data, tmp_path):
    with pytest.raises(UserError, match="no data folder"):
        inspect(tmp_path / "nowhere")
    config = DataConfig(root=str(small_data), val_split="test")
    (finding,) = inspect(config, cheap=True).findings
    assert "no images in the split 'test'" in finding.problem


def test_flat_images_of_different_brightness_are_not_near_duplicates():
    bits = np.zeros(64, dtype=bool)
    looks = [
        Look(split=split, image=split, bits=bits, thumbnail=np.full((16, 16), value, dtype=np.uint8))
        for split, value in (("train", 80), ("val", 120), ("test", 120))
    ]
    assert [(a.split, b.split) for a, b in close_pairs(looks)] == [("test", "val")]


def test_sheets_show_images_beside_coloured_masks(clean, tmp_path):
    sheet = contact_sheet(clean)
    assert sheet.dtype == np.uint8
    assert sheet.shape[2] == 3
    colors = {tuple(color) for color in sheet.reshape(-1, 3).tolist()}
    assert {tuple(color) for color in description(clean)["palette"]} <= colors
    recipe = find_recipe("folder_b0")
    recipe = replace(
        recipe,
        data=replace(recipe.data, root=str(clean), crop=(96, 96), photometric=False),
        preprocessing=Preprocessing(mean=(10.0, 20.0, 30.0), std=(50.0, 60.0, 70.0)),
    )
    augmented = augmented_sheet(recipe, count=3)
    assert augmented.shape[1:] == sheet.shape[1:]
    assert np.array_equal(augmented, augmented_sheet(recipe, count=3))
    for path in clean.glob("images/*/*"):
        Image.new("RGB", Image.open(path).size, (200, 100, 50)).save(path, quality=100)
    tile = augmented_sheet(recipe, count=1)[60, 60].astype(int)
    assert np.abs(tile - [200, 100, 50]).max() <= 3


def test_the_contact_sheet_leaves_out_what_can_not_be_read(small_data):
    truncate(image_of(small_data, 0))
    assert contact_sheet(small_data).shape[2] == 3
    shutil.rmtree(small_data / "masks" / "train")
    shutil.rmtree(small_data / "masks" / "val")
    with pytest.raises(ValueError, match="none could be read"):
        contact_sheet(small_data)


def test_a_smoothed_or_grey_colour_mask_gets_another_fix(small_data):
    remap(mask_of(small_data), lambda mask: np.repeat(mask[:, :, None], 3, axis=2))
    (finding,) = inspect(small_data).errors
    assert "channels are equal" in finding.fix
    picture = Image.new("RGB", (64, 48))
    ImageDraw.Draw(picture).ellipse((5, 5, 40, 40), (200, 10, 10))
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(mask_of(small_data))
    (finding,) = inspect(small_data).errors
    assert "antialiasing" in finding.fix

import shutil

import pytest

from planted_faults import image_of
from segformer.data.doctor.diagnosis import diagnose
from segformer.data.sources.folder import open_source


def test_files_of_other_kinds_are_ignored(small_data):
    for folder in (small_data, small_data / "images", small_data / "images" / "train", small_data / "masks" / "val"):
        (folder / "Thumbs.db").write_bytes(b"\0\1\2")
        (folder / "notes.txt").write_text("hello")
        (folder / ".DS_Store").write_bytes(b"")
        (folder / "._000.png").write_bytes(b"resource fork")
    assert diagnose(small_data).findings == ()


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
        diagnosis = diagnose(small_data, cheap=cheap)
        assert not diagnosis.ready
        assert any(message in finding.problem for finding in diagnosis.errors)


def test_a_folder_without_splits_or_with_lists(small_data):
    for kind in ("images", "masks"):
        for path in sorted(small_data.glob(f"{kind}/*/*.png")):
            path.rename(small_data / kind / f"{path.parent.name}_{path.name}")
        for split in ("train", "val"):
            (small_data / kind / split).rmdir()
    found = diagnose(small_data)
    assert found.ready
    assert {name: split.num_images for name, split in found.splits.items()} == {
        name: len(samples) for name, samples in open_source(str(small_data)).splits.items()
    }
    (small_data / "train.txt").write_text("train_000\ntrain_001\n")
    (small_data / "val.txt").write_text("val_000\n")
    shutil.copy(small_data / "masks" / "val_000.png", small_data / "masks" / "alone.png")
    found = diagnose(small_data)
    assert {name: split.num_images for name, split in found.splits.items()} == {"train": 2, "val": 1}
    assert [f.files for f in found.findings] == [(str(small_data / "masks" / "alone.png"),)]

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segformer.data.dataset import Pair
from segformer.data.loading import SegmentationDataset
from segformer.data.sources import folder
from segformer.data.sources.camvid import CLASSES, PALETTE, TABLE, open_source, recognizes
from segformer.errors import UserError


def write_pair(root: Path, split: str, name: str, ids: tuple[int, ...] = (0, 10, 11)) -> None:
    """An image (2, N) and its mask, whose columns have the ids."""
    for path in (root / split, root / f"{split}annot"):
        path.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (len(ids), 2)).save(root / split / f"{name}.png")
    Image.fromarray(np.array([ids, ids], np.uint8)).save(root / f"{split}annot" / f"{name}.png")


def official(root: Path) -> Path:
    for split, name in (("train", "0001TP_006690"), ("val", "0016E5_07959"), ("test", "Seq05VD_f00000")):
        write_pair(root, split, name)
        (root / f"{split}.txt").write_text(
            f"/SegNet/CamVid/{split}/{name}.png /SegNet/CamVid/{split}annot/{name}.png\n"
        )
    return root


def test_the_three_splits(tmp_path: Path) -> None:
    source = open_source(str(official(tmp_path)))
    names = {split: [sample.name for sample in samples] for split, samples in source.splits.items()}
    assert names == {"train": ["0001TP_006690"], "val": ["0016E5_07959"], "test": ["Seq05VD_f00000"]}
    assert source.name == "camvid"
    assert recognizes(tmp_path)
    (pair,) = open_source(str(tmp_path)).samples("val")
    assert pair.mask == tmp_path / "valannot/0016E5_07959.png"


def test_11_classes_and_11_ignored(tmp_path: Path) -> None:
    assert TABLE.values.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 255]
    assert len(set(CLASSES)) == len(set(PALETTE)) == len(CLASSES) == len(PALETTE) == 11
    write_pair(tmp_path, "test", "a", (0, 3, 8, 10, 11))
    source = open_source(str(tmp_path))
    assert list(source.splits) == ["test"]
    _, mask = SegmentationDataset(source.samples("test"), source.table, None)[0, 0]
    assert mask.tolist() == [[0, 3, 8, 10, 255]] * 2


@pytest.mark.parametrize("raw", [12, 31, 255])  # 31: a label of the 32 original classes
def test_other_ids_name_the_mask(raw: int, tmp_path: Path) -> None:
    write_pair(tmp_path, "val", "a", (0, raw))
    source = open_source(str(tmp_path))
    with pytest.raises(ValueError, match=rf"valannot/a\.png: expected labels 0-10 or 11 \(ignored\), got {raw}"):
        SegmentationDataset(source.samples("val"), source.table, None)[0, 0]


def test_an_image_without_a_mask_is_named(tmp_path: Path) -> None:
    official(tmp_path)
    (tmp_path / "testannot/Seq05VD_f00000.png").unlink()
    with pytest.raises(UserError, match=r"testannot/Seq05VD_f00000\.png: no mask for .*test/Seq05VD_f00000\.p"):
        open_source(str(tmp_path))


def test_an_empty_split_is_named(tmp_path: Path) -> None:
    official(tmp_path)
    (tmp_path / "val/0016E5_07959.png").unlink()
    with pytest.raises(ValueError, match=f"{tmp_path / 'val'}: no images found"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("inside", ["train", "images"])
def test_a_wrong_root_says_expected_and_found(inside: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no data folder at '{tmp_path / 'gone'}'"):
        open_source(str(tmp_path / "gone"))
    (tmp_path / inside).mkdir()
    assert not recognizes(tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path}: expected train/ and trainannot/, .*; found {inside}/$"):
        open_source(str(tmp_path))


def test_the_generic_copy_of_it_has_the_same_classes(shared_data: Path, tmp_path: Path) -> None:
    generic = folder.open_source(str(shared_data / "camvid11"))
    assert generic.classes == CLASSES
    assert generic.palette == PALETTE
    pair = generic.samples("val")[0]
    assert isinstance(pair, Pair)
    image, mask = pair.read()  # back to the original: PNG, 11 ignored
    for place, array in (("val", image), ("valannot", np.where(mask == 255, 11, mask).astype(np.uint8))):
        (tmp_path / place).mkdir()
        Image.fromarray(array).save(tmp_path / place / "a.png")
    source = open_source(str(tmp_path))
    (sample,) = source.samples("val")
    assert (source.table.apply(sample.read()[1], "a") == generic.table.apply(mask, "a")).all()

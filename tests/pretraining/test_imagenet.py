import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from segformer.errors import UserError
from segformer.pretraining.imagenet import ClassificationDataset, is_class_folders, open_images

OFFICIAL = "ILSVRC/Data/CLS-LOC"


def write_images(root: Path, *places: str) -> Path:
    """Images of 3 x 2 pixels whose red is their number."""
    for number, place in enumerate(places):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 3), (number, 0, 0)).save(root / place, format="PNG")
    return root


def official(root: Path, table: str = "b,n02 1 2 3 4\na,n03 1 2 3 4 n03 5 6 7 8\n") -> Path:
    write_images(
        root, *(f"{OFFICIAL}/{place}" for place in ("train/n03/x.JPEG", "train/n02/y.JPEG", "val/a.JPEG", "val/b.JPEG"))
    )
    (root / "LOC_val_solution.csv").write_text(f"ImageId,PredictionString\n{table}")
    return root


def places(root: Path, split: str) -> list[tuple[str, int]]:
    return [(path.relative_to(root).as_posix(), label) for path, label in open_images(str(root)).samples(split)]


def test_class_folders(tmp_path: Path) -> None:
    write_images(tmp_path, "train/tench/b.JPEG", "train/tench/a.jpg", "train/cock/c.png", "val/tench/d.JPEG")
    (tmp_path / "train/tench/notes.txt").write_text("no image")
    write_images(tmp_path, "train/tench/._b.JPEG", "train/.hidden/a.JPEG")
    images = open_images(str(tmp_path))
    assert is_class_folders(tmp_path)
    assert images.name == str(tmp_path)
    assert images.classes == ("cock", "tench")
    assert places(tmp_path, "train") == [("train/cock/c.png", 0), ("train/tench/a.jpg", 1), ("train/tench/b.JPEG", 1)]
    assert places(tmp_path, "val") == [("val/tench/d.JPEG", 1)]  # val may lack a class


def test_samples_are_a_sequence(tmp_path: Path) -> None:
    write_images(tmp_path, *(f"train/{name}/{name}.png" for name in ("ä", "b", "c")))
    samples = open_images(str(tmp_path)).samples("train")
    assert [path.name for path, _ in samples] == ["b.png", "c.png", "ä.png"]
    assert samples[-1] == (tmp_path / "train/ä/ä.png", 2)
    assert list(samples[1:]) == [samples[1], samples[2]]
    assert len(samples[:2]) == 2
    with pytest.raises(IndexError):
        samples[3]


def test_a_split_that_is_not_there(tmp_path: Path) -> None:
    write_images(tmp_path, "train/a/a.png")
    with pytest.raises(ValueError, match=r"has no split 'val'; it has train$"):
        open_images(str(tmp_path)).samples("val")


def test_the_official_tree(tmp_path: Path) -> None:
    official(tmp_path)
    assert places(tmp_path, "train") == [(f"{OFFICIAL}/train/n02/y.JPEG", 0), (f"{OFFICIAL}/train/n03/x.JPEG", 1)]
    assert places(tmp_path, "val") == [(f"{OFFICIAL}/val/a.JPEG", 1), (f"{OFFICIAL}/val/b.JPEG", 0)]
    assert open_images(str(tmp_path)).classes == ("n02", "n03")


def test_the_official_tree_with_val_sorted(tmp_path: Path) -> None:
    write_images(tmp_path, f"{OFFICIAL}/train/n03/x.JPEG", f"{OFFICIAL}/val/n03/a.JPEG")
    assert places(tmp_path, "val") == [(f"{OFFICIAL}/val/n03/a.JPEG", 0)]


def test_readable_names(tmp_path: Path) -> None:
    official(tmp_path)
    names = tmp_path / "LOC_synset_mapping.txt"
    names.write_text("n01 tench, Tinca tinca\nn03 great white shark, white shark\n\n")
    assert open_images(str(tmp_path)).classes == ("n02", "great white shark, white shark")
    names.write_text("n01 tench\nn03\n")
    with pytest.raises(ValueError, match=r"LOC_synset_mapping\.txt: expected lines with .*, got 'n03'"):
        open_images(str(tmp_path))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("a,n03 1 2 3 4\n", r"val/b\.JPEG: .*LOC_val_solution\.csv gives this image no class"),
        (
            "a,n03 1\nb,n09 1\n",
            r"val/b\.JPEG: .*LOC_val_solution\.csv gives this image the class n09, which has no folder in train/",
        ),
        ("a,n03 1\nb,n02 1\nc,n02 1\n", r"LOC_val_solution\.csv names 'c', but .*val has no such image"),
        ("a\nb\n", r"LOC_val_solution\.csv: expected the columns ImageId and PredictionString"),
        ("a, \nb,n02\n", r"LOC_val_solution\.csv: expected the columns ImageId and PredictionString"),
    ],
)
def test_a_table_that_does_not_match(table: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        open_images(str(official(tmp_path, table)))


@pytest.mark.parametrize("table", ["", "id,class\na,n03\n"])
def test_a_file_that_is_no_table(table: str, tmp_path: Path) -> None:
    (official(tmp_path) / "LOC_val_solution.csv").write_text(table)
    with pytest.raises(ValueError, match="expected the columns ImageId and PredictionString, got "):
        open_images(str(tmp_path))


def test_a_flat_val_without_the_table_says_what_to_do(tmp_path: Path) -> None:
    write_images(tmp_path, "train/a/a.png", "val/b.png")
    with pytest.raises(
        UserError, match=r"LOC_val_solution\.csv: this table .* is missing; .* or sort the images into one"
    ):
        open_images(str(tmp_path))


def test_a_class_of_val_that_train_lacks_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, "train/a/a.png", "val/a/a.png", "val/b/b.png")
    with pytest.raises(ValueError, match="val/b: this class has no folder in train/"):
        open_images(str(tmp_path))


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_empty_class_folder_is_named(split: str, tmp_path: Path) -> None:
    write_images(tmp_path, "train/a/a.png", "train/b/b.png", "val/a/a.png", "val/b/b.png")
    (tmp_path / split / "b/b.png").unlink()
    with pytest.raises(ValueError, match=f"{split}/b: no images in this class folder"):
        open_images(str(tmp_path))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (["train/a.png"], r"train: expected one folder per class, found the image a\.png outside of them"),
        (["train/a/a.png", "train/b.png"], r"train: expected one folder per class, found the image b\.png"),
        (["train/a/a.png", "val/a/a.png", "val/b.png"], r"val: .* found both, such as a/ and b\.png"),
    ],
)
def test_images_out_of_place_are_named(images: list[str], message: str, tmp_path: Path) -> None:
    write_images(tmp_path, *images)
    with pytest.raises(ValueError, match=message):
        open_images(str(tmp_path))


def test_empty_folders(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match="train: expected one folder per class, found none"):
        open_images(str(tmp_path))
    write_images(tmp_path, "train/a/a.png")
    (tmp_path / "val").mkdir()
    with pytest.raises(ValueError, match="val: expected either class folders or images, found neither"):
        open_images(str(tmp_path))


def test_a_wrong_root_says_expected_and_found(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no data folder at '{tmp_path / 'gone'}'; expected train/ and val/"):
        open_images(str(tmp_path / "gone"))
    (tmp_path / "images").mkdir()
    assert not is_class_folders(tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path}: expected train/ and val/ .*; found images/$"):
        open_images(str(tmp_path))


def noisy(image: Tensor, generator: torch.Generator) -> Tensor:
    return image.float() + torch.rand(1, generator=generator)


def test_items_are_a_function_of_seed_epoch_and_index(tmp_path: Path) -> None:
    write_images(tmp_path, "train/a/a.png", "train/b/b.png")
    samples = open_images(str(tmp_path)).samples("train")
    dataset = ClassificationDataset(samples, noisy, seed=3)
    assert len(dataset) == 2
    image, label = dataset[5, 1]
    assert image.shape == (3, 3, 2)
    assert (label, int(image[0, 0, 0])) == (1, 1)
    assert torch.equal(image, dataset[5, 1][0])
    others = [dataset[6, 1][0], ClassificationDataset(samples, noisy, seed=4)[5, 1][0]]
    assert not any(torch.equal(image, other) for other in others)


def test_images_come_as_8_bit_rgb(tmp_path: Path) -> None:
    (tmp_path / "train/a").mkdir(parents=True)
    Image.fromarray(np.full((3, 2), 9, np.uint8)).save(tmp_path / "train/a/gray.png")
    samples = open_images(str(tmp_path)).samples("train")
    image, label = ClassificationDataset(samples, lambda image, _: image)[0, 0]
    assert (image.dtype, image.shape, label) == (torch.uint8, (3, 3, 2), 0)
    assert (image == 9).all()


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, "train/a/a.png")
    (tmp_path / "train/a/a.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"train/a/a\.png: expected an image"):
        ClassificationDataset(open_images(str(tmp_path)).samples("train"), noisy)[0, 0]


def test_workers_give_what_the_process_itself_gives(tmp_path: Path) -> None:
    write_images(tmp_path, *(f"train/{name}/a.png" for name in "abcd"))
    dataset = ClassificationDataset(open_images(str(tmp_path)).samples("train"), noisy)
    items = [[(0, 2), (0, 0)], [(1, 1), (1, 3)]]
    batches = list(DataLoader(pickle.loads(pickle.dumps(dataset)), batch_sampler=items, num_workers=2))
    for batch, (images, labels) in zip(items, batches, strict=True):
        expected = [dataset[item] for item in batch]
        assert torch.equal(images, torch.stack([image for image, _ in expected]))
        assert labels.tolist() == [label for _, label in expected]

import json
import pickle
import sys
import zipfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL import Image
from torch.utils.data import DataLoader

from folder_trees import names
from segformer.data.images import Decoding
from segformer.data.loading import SegmentationDataset
from segformer.data.sources.hub import HubSamples, open_source
from segformer.errors import UserError

Cells = Sequence[Any]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the library writes during a test."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", tmp_path / "cache/downloads")
    monkeypatch.setattr(datasets.config, "EXTRACTED_DATASETS_PATH", tmp_path / "cache/extracted")
    return tmp_path / "cache"


def encoded(pixels: Any, **options: Any) -> bytes:
    """The bytes of a PNG."""
    buffer = BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(buffer, format="PNG", **options)
    return buffer.getvalue()


def image_of(number: int) -> bytes:
    """An image (2, 3) whose red is the number."""
    return encoded(np.broadcast_to(np.array([number, 20, 30], np.uint8), (2, 3, 3)).copy())


def mask_of(*ids: int) -> bytes:
    """A mask (2, 3) whose columns have the ids."""
    return encoded(np.array([ids, ids], np.uint8 if max(ids) < 256 else np.uint16))


def rows(masks: Cells, images: Cells | None = None, names: tuple[str, str] = ("image", "label")) -> datasets.Dataset:
    """A split with the masks; the images are numbered."""
    images = [image_of(number) for number in range(len(masks))] if images is None else images
    cells = [[cell if cell is None else {"bytes": cell, "path": None} for cell in column] for column in (images, masks)]
    features = datasets.Features({name: datasets.Image() for name in names} | {"scene": datasets.Value("string")})
    columns = dict(zip(names, cells, strict=True)) | {"scene": ["street"] * len(masks)}
    return datasets.Dataset.from_dict(columns, features=features)


def saved(root: Path, splits: dict[str, datasets.Dataset], id2label: dict[str, str] | None = None) -> Path:
    """A copy as save_to_disk writes it."""
    datasets.DatasetDict(splits).save_to_disk(str(root))
    if id2label:
        (root / "id2label.json").write_text(json.dumps(id2label))
    return root


def small(root: Path) -> Path:
    """Two images to train on, one to validate on, three classes."""
    splits = {"train": rows([mask_of(0, 1, 2), mask_of(2, 255, 0)]), "validation": rows([mask_of(1, 1, 0)])}
    return saved(root, splits, {"0": "road", "1": "tree", "2": "sky"})


def test_a_copy_of_save_to_disk(tmp_path: Path) -> None:
    source = open_source(str(small(tmp_path / "data")))
    assert source.name == str(tmp_path / "data")
    assert source.classes == ("road", "tree", "sky")
    assert len(set(source.palette)) == 3
    assert source.notes == ()
    assert names(source) == {"train": ["train[0]", "train[1]"], "val": ["validation[0]"]}
    image, mask = source.samples("train")[1].read()
    assert image.dtype == np.uint8
    assert image.tolist() == [[[1, 20, 30]] * 3] * 2
    assert mask.tolist() == [[2, 255, 0]] * 2
    assert source.table.apply(mask, "mask").tolist() == [[2, 255, 0]] * 2


def test_a_split_saved_alone(tmp_path: Path) -> None:
    rows([mask_of(0, 1, 2)] * 3).save_to_disk(str(tmp_path / "data"))
    source = open_source(str(tmp_path / "data"))
    assert sorted(name for part in names(source).values() for name in part) == ["train[0]", "train[1]", "train[2]"]


@pytest.mark.parametrize("id2label", [True, False])
def test_a_folder_of_parquet_files(id2label: bool, tmp_path: Path, cache: Path) -> None:
    (tmp_path / "data").mkdir()
    rows([mask_of(0, 1, 2)] * 2).to_parquet(tmp_path / "data/train-00000-of-00001.parquet")
    rows([mask_of(0, 1, 2)]).to_parquet(tmp_path / "data/validation-00000-of-00001.parquet")
    if id2label:
        (tmp_path / "data/id2label.json").write_text('{"0": "road", "1": "tree", "2": "sky"}')
    source = open_source(str(tmp_path / "data"))
    assert names(source) == {"train": ["train[0]", "train[1]"], "val": ["validation[0]"]}
    assert source.classes == (("road", "tree", "sky") if id2label else ("class_0", "class_1", "class_2"))
    assert source.samples("val")[0].read()[1].tolist() == [[0, 1, 2]] * 2
    assert cache.is_dir()


@pytest.mark.parametrize("archive", [True, False])
def test_a_folder_of_files_with_a_table(archive: bool, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        folder = tmp_path / "data" / split
        (folder / "masks").mkdir(parents=True)
        (folder / "a.png").write_bytes(image_of(7))
        (folder / "masks/a.png").write_bytes(mask_of(0, 1, 1))
        (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "mask_file_name": "masks/a.png"}\n')
    if archive:
        for folder in (tmp_path / "data/train", tmp_path / "data/validation"):
            with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as file:
                for path in [path for path in folder.rglob("*") if path.is_file()]:
                    file.write(path, path.relative_to(folder))
                    path.unlink()
    source = open_source(str(tmp_path / "data"))
    image, mask = source.samples("val")[0].read()
    assert image[0, 0].tolist() == [7, 20, 30]
    assert mask.tolist() == [[0, 1, 1]] * 2


def test_an_id_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(*arguments: Any) -> datasets.DatasetDict:
        asked.append(arguments)
        return datasets.DatasetDict(train=rows([mask_of(0, 1, 2)]), valid=rows([mask_of(0, 1, 2)]))

    def hf_hub_download(repo_id: str, filename: str, repo_type: str) -> str:
        asked.append((repo_id, filename, repo_type))
        if repo_id == "owner/unnamed":
            raise LocalEntryNotFoundError("not there, and not in the cache")
        (tmp_path / filename).write_text('{"0": "road", "1": "tree", "2": "sky"}')
        return str(tmp_path / filename)

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", hf_hub_download)
    source = open_source("owner/some-streets")
    assert source.name == "owner/some-streets"
    assert source.classes == ("road", "tree", "sky")
    assert list(source.splits) == ["train", "val"]
    assert asked == [("owner/some-streets", None), ("owner/some-streets", "id2label.json", "dataset")]
    unnamed = open_source("owner/unnamed:full")
    assert unnamed.classes == ("class_0", "class_1", "class_2")
    assert asked[2:4] == [("owner/unnamed", "full"), ("owner/unnamed", "id2label.json", "dataset")]


def test_an_existing_folder_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(tmp_path / "owner/name")
    monkeypatch.chdir(tmp_path)
    assert open_source("owner/name").classes == ("road", "tree", "sky")


def test_what_the_hub_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: Any) -> None:
        raise ConnectionError("Couldn't reach 'owner/gone' on the Hub\nmore")

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    with pytest.raises(UserError, match=r"no folder 'owner/gone'.* \(ConnectionError: Couldn't reach .* Hub\); "):
        open_source("owner/gone")


@pytest.mark.parametrize("root", ["", "street", "./data/street", "owner/name/more", "~/street"])
def test_a_root_that_is_neither_a_folder_nor_an_id(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"no data set '{root}'; expected a folder, or owner/name"):
        open_source(root)


def test_a_folder_without_data(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path}: expected a data set that the library datasets can read"):
        open_source(str(tmp_path))


def test_a_damaged_file_of_rows_says_why(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 no rows PAR1")
    with pytest.raises(ValueError, match=r"expected a data set that .*\((?!DatasetGenerationError).+: .+\)"):
        open_source(str(tmp_path))


def test_without_the_library_the_import_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ModuleNotFoundError) as error:
        open_source(str(tmp_path))
    assert error.value.name == "datasets"


@pytest.mark.parametrize("pair", [("pixel_values", "label"), ("image", "Annotation"), ("photo", "segmentation_mask")])
def test_columns_are_found_by_type_and_name(pair: tuple[str, str], tmp_path: Path) -> None:
    data = rows([mask_of(0, 1, 2)], names=pair)
    source = open_source(str(saved(tmp_path / "data", {"train": data, "val": data})))
    image, mask = source.samples("val")[0].read()
    assert image.shape == (2, 3, 3)
    assert mask.tolist() == [[0, 1, 2]] * 2


@pytest.mark.parametrize(
    "columns", [("image",), ("label",), ("image", "other"), ("mask", "label"), ("image", "label", "depth")]
)
def test_other_columns_are_listed(columns: tuple[str, ...], tmp_path: Path) -> None:
    features = datasets.Features({name: datasets.Image() for name in columns} | {"scene": datasets.Value("string")})
    values: dict[str, Any] = {name: [{"bytes": mask_of(0, 1), "path": None}] for name in columns} | {"scene": ["x"]}
    data = datasets.Dataset.from_dict(values, features=features)
    listed = ", ".join(rf"{name} \(Image\)" for name in columns)
    with pytest.raises(ValueError, match=rf"expected two columns of type Image.* found {listed}, scene \(Value\); "):
        open_source(str(saved(tmp_path / "data", {"train": data})))


def test_a_lone_split_is_divided(tmp_path: Path) -> None:
    source = open_source(str(saved(tmp_path / "data", {"train": rows([mask_of(0, 1, 2)] * 40)})))
    train, val = ({sample.name for sample in source.samples(split)} for split in ("train", "val"))
    assert train | val == {f"train[{k}]" for k in range(40)}
    assert not train & val
    assert 3 <= len(val) <= 15
    assert names(open_source(str(tmp_path / "data"))) == names(source)
    assert source.notes[0] == f"no split val: {len(val)} of 40 images are held out as val (by a hash of their numbers)"


def test_other_splits_without_val_are_left_as_they_are(tmp_path: Path) -> None:
    data = rows([mask_of(0, 1, 2)])
    source = open_source(str(saved(tmp_path / "data", {"train": data, "test": data})))
    assert source.notes[0] == "no split val, only train, test: choose the one to evaluate on with --data.val-split"
    with pytest.raises(ValueError, match="has no split 'val'; it has train, test"):
        source.samples("val")


def test_two_splits_that_would_both_be_val_keep_their_names(tmp_path: Path) -> None:
    data = rows([mask_of(0, 1, 2)])
    source = open_source(str(saved(tmp_path / "data", {"train": data, "validation": data, "valid": data})))
    assert list(source.splits) == ["train", "validation", "valid"]


def test_a_split_without_masks_is_left_out(tmp_path: Path) -> None:
    splits = {"train": rows([mask_of(0, 1, 2)]), "val": rows([mask_of(0, 1, 2)]), "test": rows([None, None])}
    source = open_source(str(saved(tmp_path / "data", splits)))
    assert list(source.splits) == ["train", "val"]
    assert source.notes[0] == "test is left out: it has no masks"
    with pytest.raises(ValueError, match="expected images with masks, found no masks in train"):
        open_source(str(saved(tmp_path / "none", {"train": rows([None])})))


def test_ids_without_a_name_must_not_occur_and_255_is_ignored(tmp_path: Path) -> None:
    data = rows([mask_of(4, 2, 255), mask_of(2, 3, 4)])
    named = {"10": "sign", "2": "road", "4": "tree", "255": "void"}
    source = open_source(str(saved(tmp_path / "data", {"train": data, "val": data}, named)))
    assert source.classes == ("road", "tree", "sign")
    dataset = SegmentationDataset(source.samples("train"), source.table, None)
    assert dataset[0, 0][1].tolist() == [[1, 0, 255]] * 2
    with pytest.raises(ValueError, match=r"train\[1\]: expected labels 2, 4, 10 or 255 \(ignored\), got 3"):
        dataset[0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected ids with their names"),
        ('{"a": "road"}', "expected ids with their names"),
        ('{"0": 3}', "expected ids with their names"),
        ("{", "expected JSON"),
        ("{}", "expected 1-255 classes with ids from 0 to 65535, got 0"),
        ('{"0": "road", "70000": "tree"}', "expected 1-255 classes with ids from 0 to 65535"),
        (json.dumps({str(k): f"c{k}" for k in range(300)}), "expected 1-255 classes .*, got 299"),
    ],
)
def test_names_that_can_not_be_read(text: str, message: str, tmp_path: Path) -> None:
    (small(tmp_path / "data") / "id2label.json").write_text(text)
    with pytest.raises(ValueError, match=rf"id2label\.json: {message}"):
        open_source(str(tmp_path / "data"))


def test_a_description_as_in_a_folder(tmp_path: Path) -> None:
    (small(tmp_path / "data") / "id2label.json").unlink()
    values = {"classes": ["road", "tree", "sky"], "palette": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]}
    (tmp_path / "data/dataset.json").write_text(json.dumps(values))
    source = open_source(str(tmp_path / "data"))
    assert source.classes == ("road", "tree", "sky")
    assert source.palette == ((1, 2, 3), (4, 5, 6), (7, 8, 9))


def test_without_names_the_classes_are_counted(tmp_path: Path) -> None:
    splits = {"train": rows([mask_of(0, 1, 255)]), "val": rows([mask_of(0, 255, 4)])}
    source = open_source(str(saved(tmp_path / "data", splits)))
    assert source.classes == ("class_0", "class_1", "class_2", "class_3", "class_4")
    assert len(source.palette) == 5
    assert source.notes == ("no id2label.json found: 5 classes counted in the masks, class_0 ... class_4",)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ((0, 255, 300), r"train\[1\]\.label: expected labels 0-254 or 255 \(ignored\), got 300"),
        ((0, 0, 255), "expected at least two classes in the masks, found only 0 and 255"),
    ],
)
def test_ids_that_can_not_be_counted(ids: tuple[int, ...], message: str, tmp_path: Path) -> None:
    root = saved(tmp_path / "data", {"train": rows([mask_of(0, 0, 0), mask_of(*ids)])})
    with pytest.raises(ValueError, match=message):
        open_source(str(root))


def first(root: Path, image: bytes | None, mask: bytes | None) -> tuple[Any, Any]:
    """What the first training sample of a data set of two reads as."""
    data = rows([mask, mask_of(0, 1, 2)], [image, image_of(1)])
    source = open_source(
        str(saved(root / "data", {"train": data, "val": data}, {"0": "road", "1": "tree", "2": "sky"}))
    )
    return source.samples("train")[0].read()


def test_images_are_decoded_as_files_are(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    image, _ = first(tmp_path, encoded(Image.new("L", (2, 3), 9), exif=exif), mask_of(0, 1, 2))
    assert image.shape == (2, 3, 3)
    assert (image == 9).all()


@pytest.mark.parametrize("mode", ["1", "P", "L", "I;16"])
def test_masks_are_decoded_as_files_are(mode: str, tmp_path: Path) -> None:
    mask = Image.new(mode, (3, 2), 1)
    if mode == "P":
        mask.putpalette([200, 0, 0, 0, 200, 0])
    _, ids = first(tmp_path, image_of(0), encoded(mask))
    assert ids.tolist() == [[1, 1, 1]] * 2


IMAGE, MASK = image_of(0), mask_of(0, 1, 2)
BAD = {
    "no image": (b"nothing", MASK, r"train\[0\]\.image: expected an image, got a file of another kind"),
    "image cut short": (IMAGE[:45], MASK, r"train\[0\]\.image: damaged image"),
    "image missing": (None, MASK, r"train\[0\]\.image: expected an image, found nothing"),
    "mask cut short": (IMAGE, MASK[:45], r"train\[0\]\.label: damaged image"),
    "mask missing": (IMAGE, None, r"train\[0\]\.label: expected an image, found nothing"),
    "mask of colors": (IMAGE, IMAGE, r"train\[0\]\.label: expected an index mask .* an image of mode RGB"),
    "sizes": (
        IMAGE,
        mask_of(0, 1),
        r"train\[0\]\.label: expected a mask of its image's size 2 x 3 .*, got 2 x 2; image",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_sample_is_named(case: str, tmp_path: Path) -> None:
    image, mask, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        first(tmp_path, image, mask)


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for name, content in (("a.png", image_of(0)), ("b.png", mask_of(0, 1, 2))):
        (tmp_path / "train" / name).write_bytes(content)
    (tmp_path / "train/metadata.jsonl").write_text('{"file_name": "a.png", "mask_file_name": "b.png"}\n')
    sample = open_source(str(tmp_path)).samples("val")[0]
    (tmp_path / "train/a.png").unlink()
    with pytest.raises(ValueError, match=r"train\[0\]\.image: its file cannot be read \(.*train/a\.png"):
        sample.read()


def test_raw_channels_are_not_to_be_had(tmp_path: Path) -> None:
    sample = open_source(str(small(tmp_path / "data"))).samples("train")[0]
    with pytest.raises(ValueError, match=r"train\[0\]: data sets on the hub are read as RGB"):
        sample.read(Decoding("raw", 4))


def test_samples_are_made_when_they_are_asked_for(tmp_path: Path) -> None:
    source = open_source(str(saved(tmp_path / "data", {"train": rows([mask_of(0, 1, 2)] * 12)})))
    samples = source.samples("train")
    assert isinstance(samples, HubSamples)
    assert list(samples[2:5]) == [samples[2], samples[3], samples[4]]
    assert samples[-1].name == list(samples)[-1].name
    assert len(samples[:3]) == 3
    with pytest.raises(IndexError):
        samples[len(samples)]


def as_tensors(
    image: torch.Tensor, mask: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    return image + torch.randint(9, (1,), generator=generator).to(torch.uint8), mask


@pytest.mark.parametrize("pickled", [True, False])
@pytest.mark.parametrize("parquet", [True, False])
def test_workers_give_what_the_process_itself_gives(parquet: bool, pickled: bool, tmp_path: Path) -> None:
    data = rows([mask_of(k % 3, 1, 2) for k in range(12)])
    if parquet:
        (tmp_path / "data").mkdir()
        data.to_parquet(tmp_path / "data/train.parquet")
    else:
        saved(tmp_path / "data", {"train": data})
    source = open_source(str(tmp_path / "data"))
    dataset = SegmentationDataset(source.samples("train"), source.table, as_tensors)
    batches = [[(0, 2), (0, 0)], [(1, 1), (1, 4)], [(2, 3)]]
    given = pickle.loads(pickle.dumps(dataset)) if pickled else dataset
    for items, (images, masks) in zip(batches, DataLoader(given, batch_sampler=batches, num_workers=2), strict=True):
        assert torch.equal(images, torch.stack([dataset[item][0] for item in items]))
        assert torch.equal(masks, torch.stack([dataset[item][1] for item in items]))

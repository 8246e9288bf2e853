from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import CLASSES, PALETTE, write_folder
from segformer.cli.main import main
from segformer.config import DataConfig
from segformer.data.dataset import DataSource
from segformer.data.doctor.diagnosis import diagnose
from segformer.data.label_table import LabelTable
from segformer.data.sources import SOURCES, Source
from segformer.data.sources.catalog import open_data, recognize, with_data
from segformer.data.sources.pairing import check_root, read_split_lists
from segformer.errors import UserError

CONFIG = DataConfig(dataset="folder", root="/before", crop=(64, 96))


@pytest.mark.parametrize(
    ("spec", "dataset", "root"),
    [
        ("toytown", "toytown", ""),
        ("toytown=", "toytown", ""),
        ("folder=/x", "folder", "/x"),
        ("folder=/x/lr=0.1", "folder", "/x/lr=0.1"),
        ("/x/y", "folder", "/x/y"),
        ("x", "folder", "x"),
        ("/x/lr=0.1/data", "folder", "/x/lr=0.1/data"),
        ("./lr=0.1", "folder", "./lr=0.1"),
        ("./toytown", "folder", "./toytown"),
        ("folder", "folder", "folder"),
    ],
)
def test_data_is_a_name_a_name_with_a_root_or_a_folder(spec: str, dataset: str, root: str) -> None:
    config = with_data(CONFIG, spec)
    assert (config.dataset, config.root) == (dataset, root)
    assert config.crop == (64, 96)


def test_a_root_from_before_is_not_kept() -> None:
    assert open_data(with_data(CONFIG, "toytown")).name == "toytown"


def test_an_unknown_name_with_a_root_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"--data must be one of .*folder.*toytown.*got 'nosuch'"):
        with_data(CONFIG, "nosuch=/x")


def test_a_misspelt_name_is_guessed() -> None:
    with pytest.raises(ValueError, match="did you mean 'folder'"):
        with_data(CONFIG, "foldr=/x")


def test_an_unknown_dataset_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"data\.dataset must be one of .*got 'toytwon'; did you mean 'toytown'"):
        open_data(DataConfig(dataset="toytwon"))


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(UserError, match="/no/such/folder"):
        open_data(with_data(CONFIG, "/no/such/folder"))


def test_no_folder_given_is_said_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    monkeypatch.chdir(tmp_path)  # the current folder is not what nobody asked for
    with pytest.raises(UserError, match="--data"):
        open_data(DataConfig())


def test_masks_in_another_tree_and_relabeled_classes(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", {"train": 2, "val": 1})
    (data / "masks").rename(tmp_path / "elsewhere")
    config = DataConfig(root=str(data), masks=str(tmp_path / "elsewhere"), relabel=(("disc", ""), ("ground", "land")))
    source = open_data(config)
    assert source.classes == ("land", "square")
    _, raw = source.samples("train")[0].read()
    assert set(np.unique(source.table.apply(raw, "mask"))) <= {0, 1, 255}
    with pytest.raises(ValueError, match="found no"):
        open_data(DataConfig(root=str(data)))
    with pytest.raises(ValueError, match=r"data\.masks applies only to folder; toytown has its own masks"):
        open_data(DataConfig(dataset="toytown", masks="x"))


def test_a_folder_is_recognized_by_its_layout(tmp_path: Path) -> None:
    for part in ("images/training", "annotations/training"):
        (tmp_path / "ade" / part).mkdir(parents=True)
    assert with_data(CONFIG, str(tmp_path / "ade")).dataset == "ade20k"
    (tmp_path / "ade" / "masks").mkdir()
    with pytest.raises(ValueError, match="looks like folder and ade20k; choose one: --data folder="):
        with_data(CONFIG, str(tmp_path / "ade"))
    assert with_data(CONFIG, str(tmp_path / "nowhere")).dataset == "folder"


def test_recognizing_shared_data(shared_data: Path) -> None:
    found = {name: with_data(CONFIG, str(shared_data / name)).dataset for name in ("camvid11", "cityscapes_mini")}
    assert found == {"camvid11": "folder", "cityscapes_mini": "cityscapes"}


def recognizes_lists(root: Path) -> bool:
    return (root / "Lists").is_dir() and (root / "Photos").is_dir()


def open_lists(root: str) -> DataSource:
    home = check_root(root, recognizes_lists, "Lists/, Photos/ and Labels/")
    splits = read_split_lists(home / "Lists", home / "Photos", home / "Labels")
    palette = tuple((r, g, b) for r, g, b in PALETTE)
    return DataSource("listed", tuple(CLASSES), palette, LabelTable.identity(len(CLASSES)), splits)


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the layout of PASCAL VOC, whose row is in the table as long as the test runs."""
    row = Source(open=open_lists, description="split lists", recognizes=recognizes_lists, classes=tuple(CLASSES))
    monkeypatch.setitem(SOURCES, "listed", row)
    data = write_folder(tmp_path / "plain", {"train": 4, "val": 2})
    home = tmp_path / "listed"
    lists = home / "Lists"
    lists.mkdir(parents=True)
    for split in ("train", "val"):
        names = sorted(path.stem for path in (data / "masks" / split).iterdir())
        (lists / f"{split}.txt").write_text("".join(f"{split}_{name}\n" for name in names))
        for name in names:
            for part, below in (("images", "Photos"), ("masks", "Labels")):
                target = home / below / f"{split}_{name}.png"
                target.parent.mkdir(exist_ok=True)
                (data / part / split / f"{name}.png").rename(target)
    return home


def test_a_new_row_is_opened_and_recognized(listed: Path) -> None:
    assert recognize(str(listed)) == "listed"
    for spec in (str(listed), f"listed={listed}"):
        source = open_data(spec)
        assert {split: len(samples) for split, samples in source.splits.items()} == {"train": 4, "val": 2}
    _, raw = source.samples("val")[0].read()
    assert set(np.unique(source.table.apply(raw, "mask"))) <= {0, 1, 2, 255}


def test_a_new_row_is_inspected(listed: Path) -> None:
    diagnosis = diagnose(str(listed))
    assert diagnosis.classes == tuple(CLASSES)
    assert {name: split.num_images for name, split in diagnosis.splits.items()} == {"train": 4, "val": 2}


def test_a_new_row_is_named_in_help(listed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("inspect", "evaluate", "train"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert "listed" in capsys.readouterr().out, command


def test_a_new_row_is_named_in_errors(listed: Path) -> None:
    with pytest.raises(UserError, match=r"--data must be one of .*listed"):
        with_data(CONFIG, "nosuch=/x")
    with pytest.raises(UserError, match=r"data\.masks applies only to folder; listed has its own masks"):
        open_data(DataConfig(dataset="listed", root=str(listed), masks="x"))
    (listed / "images").mkdir()
    (listed / "masks").mkdir()
    with pytest.raises(UserError, match="looks like folder and listed; choose one: --data folder="):
        with_data(CONFIG, str(listed))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda home: (home / "Lists/train.txt").write_text("no_such"), "names 'no_such', but there"),
        (lambda home: next((home / "Labels").iterdir()).unlink(), r"\.png: no mask for the image"),
        (lambda home: [path.unlink() for path in (home / "Lists").iterdir()], "expected lists of"),
    ],
)
def test_what_split_lists_miss_is_named(change: Callable[[Path], object], message: str, listed: Path) -> None:
    change(listed)
    with pytest.raises(UserError, match=message):
        open_data(str(listed))


def test_a_name_alone_and_a_name_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "drawn", replace(SOURCES["toytown"], description="drawn too"))
    monkeypatch.setitem(SOURCES, "registry", replace(SOURCES["hub"], description="elsewhere"))
    assert with_data(CONFIG, "drawn").dataset == "drawn"
    assert with_data(CONFIG, "registry:owner/name").root == "owner/name"


def test_every_row_agrees_with_its_source() -> None:
    for name, row in SOURCES.items():
        assert row.description
        assert (row.classes is None) == (row.palette is None), name
        assert len(row.classes or ()) == len(row.palette or ()), name

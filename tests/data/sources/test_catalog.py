from pathlib import Path

import numpy as np
import pytest

from conftest import write_folder
from segformer.config import DataConfig
from segformer.data.sources.catalog import open_data, with_data
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


def test_masks_in_another_tree_and_relabelled_classes(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", {"train": 2, "val": 1})
    (data / "masks").rename(tmp_path / "elsewhere")
    config = DataConfig(root=str(data), masks=str(tmp_path / "elsewhere"), relabel=(("disc", ""), ("ground", "land")))
    source = open_data(config)
    assert source.classes == ("land", "square")
    _, raw = source.samples("train")[0].read()
    assert set(np.unique(source.table.apply(raw, "mask"))) <= {0, 1, 255}
    with pytest.raises(ValueError, match="found no"):
        open_data(DataConfig(root=str(data)))
    with pytest.raises(ValueError, match=r"data\.masks is for generic folders"):
        open_data(DataConfig(dataset="toytown", masks="x"))


def test_a_folder_is_recognised_by_its_layout(tmp_path: Path) -> None:
    for part in ("images/training", "annotations/training"):
        (tmp_path / "ade" / part).mkdir(parents=True)
    assert with_data(CONFIG, str(tmp_path / "ade")).dataset == "ade20k"
    (tmp_path / "ade" / "masks").mkdir()
    with pytest.raises(ValueError, match="looks like folder and ade20k; say which: --data folder="):
        with_data(CONFIG, str(tmp_path / "ade"))
    assert with_data(CONFIG, str(tmp_path / "nowhere")).dataset == "folder"


def test_recognising_shared_data(shared_data: Path) -> None:
    found = {name: with_data(CONFIG, str(shared_data / name)).dataset for name in ("camvid11", "cityscapes_mini")}
    assert found == {"camvid11": "folder", "cityscapes_mini": "cityscapes"}

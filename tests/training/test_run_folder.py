import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import segformer
from segformer.errors import UserError
from segformer.recipes import FOLDER_B0, read_recipe
from segformer.training.run_folder import RunFolder, check_same, flatten, read_metrics


def test_a_new_run_writes_its_recipe(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.open(FOLDER_B0, resume=False, read=read_recipe)
    assert read_recipe(tmp_path / "run" / "recipe.json") == FOLDER_B0
    assert folder.load_trainer() is None
    assert (folder.best, folder.last) == (tmp_path / "run" / "best", tmp_path / "run" / "last")


def test_nothing_of_worth_is_overwritten(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.open(FOLDER_B0, resume=False, read=read_recipe)
    folder.log({"step": 1})
    folder.open(FOLDER_B0, resume=False, read=read_recipe)  # nothing was saved: the run may start again
    assert read_metrics(tmp_path / "run") == []
    folder.save_last({}, lambda partial: None)
    with pytest.raises(UserError, match="already exists; resume its run with --resume"):
        folder.open(FOLDER_B0, resume=False, read=read_recipe)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="already exists"):
        RunFolder(tmp_path / "file").open(FOLDER_B0, resume=False, read=read_recipe)
    assert (tmp_path / "file").read_text() == "mine"


def test_what_is_no_run_does_not_resume(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run to resume; leave out --resume"):
        RunFolder(tmp_path / "run").open(FOLDER_B0, resume=True, read=read_recipe)


def test_a_changed_recipe_is_named(tmp_path: Path) -> None:
    changed = replace(FOLDER_B0, train=replace(FOLDER_B0.train, lr=0.5, seed=3))
    with pytest.raises(UserError, match=r"train\.lr was 0\.0012, is now 0\.5; train\.seed was 0, is now 3; leave out"):
        check_same(FOLDER_B0, changed, tmp_path)
    check_same(FOLDER_B0, replace(FOLDER_B0, description="The same in other words.", paper="-"), tmp_path)


def test_the_state_is_kept_with_what_lies_beside_it(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for value in (1.0, 2.0):
        folder.save_last({"weight": torch.tensor([value])}, lambda partial: (partial / "more.txt").write_text("x"))
    state = folder.load_trainer()
    assert state is not None
    assert state["weight"].tolist() == [2.0]
    assert (folder.last / "more.txt").read_text() == "x"


def test_a_kill_between_two_renames_is_repaired(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.open(FOLDER_B0, resume=False, read=read_recipe)
    folder.save_last({"step": 3}, lambda partial: None)
    folder.last.rename(tmp_path / "run" / ".last.previous")
    folder.open(FOLDER_B0, resume=True, read=read_recipe)
    assert folder.load_trainer() == {"step": 3}


@pytest.mark.parametrize("damage", [b"", b"no state", None])
def test_a_damaged_state_is_one_line(tmp_path: Path, damage: bytes | None) -> None:
    folder = RunFolder(tmp_path)
    folder.save_last({"weight": torch.zeros(100)}, lambda partial: None)
    path = folder.last / "trainer.pt"
    path.write_bytes(path.read_bytes()[:500] if damage is None else damage)
    with pytest.raises(UserError, match=r"trainer\.pt: damaged"):
        folder.load_trainer()
    path.unlink()
    with pytest.raises(UserError, match=r"trainer\.pt is missing"):
        folder.load_trainer()


def test_lines_after_the_last_save_are_dropped(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step in range(1, 6):
        folder.log({"step": step, "loss": step / 2})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # a kill tore it
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
    folder.drop_after(3)
    assert read_metrics(tmp_path) == [{"step": step, "loss": step / 2} for step in (1, 2, 3)]


def test_the_manifest_names_versions_and_facts(tmp_path: Path) -> None:
    RunFolder(tmp_path).write_manifest({"device": "cpu"})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["versions"]["segformer"] == segformer.__version__
    assert manifest["device"] == "cpu"
    assert manifest["threads"] >= 1


def test_flatten() -> None:
    assert flatten({"a": {"b": {"c": 1}}, "d": [2]}) == {"a.b.c": 1, "d": [2]}

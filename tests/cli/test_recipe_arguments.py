from pathlib import Path

import pytest

from segformer.cli import recipe_arguments
from segformer.cli.recipe_arguments import RecipeChoice, choose_recipe, launch_devices


@pytest.mark.parametrize(
    ("line", "name", "resumed"),
    [
        ("", None, None),
        ("toytown_b0", "toytown_b0", None),
        ("my/recipe.json --train.lr 3", "my/recipe.json", None),
        ("--run-dir X", None, None),
        ("--run-dir X --resume", None, "X"),
        ("--resume --run-dir X", None, "X"),
        ("--run-dir=X --resume", None, "X"),
        ("--run_dir=X --resume", None, "X"),
        ("--run_dir X --resume", None, "X"),
        ("--run-dir X --run-dir=Y --resume", None, "Y"),
        ("--run-dir X --resume --no-resume", None, None),
        ("--run-dir=a=b --resume", None, "a=b"),
        ("--train.lr 3 --run-dir X --data.crop 40 48 --resume", None, "X"),
        ("--train.wandb resume --run-dir X", None, None),
        ("toytown_b0 --run-dir X --resume", "toytown_b0", "X"),
        ("--resume", None, None),
        ("--resume --run-dir", None, None),  # a fault that the full parse reports
        ("--help", None, None),
    ],
)
def test_what_a_command_line_chooses(line: str, name: str | None, resumed: str | None) -> None:
    expected = RecipeChoice(name, None if resumed is None else Path(resumed))
    assert choose_recipe(line.split()) == expected


def test_the_recipe_is_the_named_one_or_that_of_the_run() -> None:
    assert RecipeChoice("b0", Path("X")).recipe_of("default") == "b0"
    assert RecipeChoice(None, Path("X")).recipe_of("default") == str(Path("X", "recipe.json"))
    assert RecipeChoice(None, None).recipe_of("default") == "default"


def test_one_device_and_a_process_among_several_launch_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[object] = []
    monkeypatch.setattr("segformer.training.processes.launch", lambda *call: launched.append(call) or 5)
    launch_devices(["train"], 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    launch_devices(["train"], 2)
    assert launched == []
    monkeypatch.delenv("LOCAL_RANK")
    with pytest.raises(SystemExit) as ended:
        recipe_arguments.launch_devices(["train", "x"], 2)
    assert (ended.value.code, launched) == (5, [(["train", "x"], 2)])


@pytest.mark.parametrize("arguments", [["b0", "--model.encoder", "mit_b2"], ["b0", "--model.encoder=mit_b2", "--list"]])
def test_another_encoder_is_read_before_the_other_options(arguments: list[str]) -> None:
    assert choose_recipe(arguments).encoder == "mit_b2"
    assert choose_recipe(arguments[:1]).encoder is None

import signal
from pathlib import Path

import pytest

from pretraining_runs import write_pictures
from segformer.cli.main import main
from segformer.pretraining.recipes import read_pretrain_recipe
from segformer.training.run_folder import read_metrics
from small_runs import stop_in_step

SMALL = ["--size", "32", "--batch-size", "24", "--warmup-epochs", "0", "--epochs", "1", "--log-every", "1"]
SMALL += ["--workers", "0", "--precision", "fp32", "--device", "cpu"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


def run(*arguments: object) -> int:
    """Exit status of the command."""
    try:
        main(["pretrain", *map(str, arguments)])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def test_a_run_resumes_with_its_own_recipe(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_in_step(1, signal.SIGTERM, patch)
        assert run("tiny_imagenet_b0", "--data", pictures, "--run-dir", folder, *SMALL) == 128 + signal.SIGTERM
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"saved in epoch 0; resume with: segformer pretrain --run-dir {folder} --resume"
    assert run(f"--run-dir={folder}", "--resume", "--device", "cpu") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].startswith("top-1 ")
    assert any(line.startswith("epoch 1: top-1 ") and "top-5 1.0000" in line for line in printed)
    assert f"report: {folder / 'report.html'}" in printed
    assert [line["step"] for line in read_metrics(folder) if "loss" in line] == [1, 2]
    recipe = read_pretrain_recipe(folder / "recipe.json")
    assert (recipe.name, recipe.epochs, recipe.root) == ("tiny_imagenet_b0", 1, str(pictures))


def test_the_help_lists_the_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "imagenet_b0, imagenet_b1" in printed
    assert "tiny_imagenet_b0" in printed
    assert "--patience" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "pretrain needs a RECIPE first, such as imagenet_b0"),
        (["--resume"], "pretrain needs a RECIPE first"),
        (["--size", "64", "imagenet_b0"], "RECIPE"),
        (["imagenet_b"], "did you mean 'imagenet_b"),
        (["imagenet_b0", "--encoder", "mit_b9", "--root", "nowhere"], "no data folder at 'nowhere'"),
    ],
)
def test_what_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line

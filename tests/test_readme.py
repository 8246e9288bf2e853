import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import segformer
from conftest import draw_pair, write_folder
from segformer.published import MIT_SIZES
from segformer.recipes import RECIPES

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_python_in_the_readme_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    segformer.save(segformer.build_model("mit_b0", num_classes=11), "runs/camvid_b0_quick/best")
    Image.fromarray(draw_pair(0)[0]).save("photo.jpg")
    data = write_folder(tmp_path / "camvid", {"test": 1})
    (data / "dataset.json").write_text(json.dumps({"classes": [f"class_{k}" for k in range(11)]}))
    exec(compile(code.replace("1024, 2048", "64, 96"), "README.md", "exec"), {})  # a large image takes long


def test_the_readme_shows_python() -> None:
    assert len(BLOCKS) >= 2


def test_names_in_the_readme_exist() -> None:
    for name in re.findall(r"segformer train (\w+)(?!\w|/)", README):
        assert name in RECIPES
    for name in re.findall(r'build_model\("(\w+)"', README):
        assert name in MIT_SIZES
    for path in re.findall(r"`(tests/[\w/]+\.py)`", README):
        assert (Path(__file__).parents[1] / path).is_file()


def test_public_names_load() -> None:
    for name in segformer.__all__:
        assert getattr(segformer, name) is not None
    assert set(segformer.__all__) <= set(dir(segformer))
    assert "mit_b0" in segformer.list_models()
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        segformer.nothing  # noqa: B018  # the attribute access is the test


def test_the_tables_are_those_of_the_results() -> None:
    """A change of either is made by `python -m benchmarks.tables`."""
    run = subprocess.run([sys.executable, "-m", "benchmarks.tables", "--check"], cwd=Path(__file__).parents[1])
    assert run.returncode == 0

"""The how-tos of CONTRIBUTING.md, applied to a copy of the package as a reader would apply them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOW_TOS = (ROOT / "CONTRIBUTING.md").read_text().split("\n## How to add", 1)[1].split("\n### ")[1:]
TABLES = ["SOURCES", "DECODERS", "ENCODERS", "FORMATS", "CORRUPTIONS", "LOSSES"]
TESTS_OF_TABLES = [
    "tests/data/sources/test_catalog.py",
    "tests/models/test_build.py",
    "tests/ops/test_losses.py",
    "tests/checkpoints/test_conversion.py",
    "tests/checkpoints/test_foreign.py",
    "tests/robustness/test_table5.py",
    "tests/robustness/test_corruptions.py",
]
QUICK = "not any_size and not black and not mit_b3 and not mit_b4 and not mit_b5"


def apply_how_to(text: str, tree: Path) -> str:
    """Create the module, add the import and the row, and create the test; returns the path of the test."""
    new, home, test = re.findall(r"`((?:src|tests)/[\w/]+\.py)`", text)
    code, row, test_code = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (tree / new).write_text(code)
    (tree / test).write_text(test_code)
    found = re.search(r"import `(\w+)`(?: from `([\w.]+)`)? and add a row to `(\w+)`", text)
    assert found is not None
    name, package, table = found.groups()
    module = package or new.removeprefix("src/").removesuffix(".py").replace("/", ".")
    source = (tree / home).read_text()
    start = source.index("\nfrom segformer") + 1
    source = f"{source[:start]}from {module} import {name}\n{source[start:]}"
    end = source.index("\n}\n", source.index(f"\n{table}: dict")) + 1
    (tree / home).write_text(source[:end] + row + source[end:])
    return test


def add_recipe(text: str, tree: Path) -> None:
    """Add the call below the recipes of our own."""
    (call,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    path = tree / "src" / "segformer" / "recipes.py"
    own, rest = path.read_text().split("\n# The paper's runs", 1)
    path.write_text(f"{own}{call}\n# The paper's runs{rest}")


def test_each_table_has_a_how_to() -> None:
    *how_tos, recipe = HOW_TOS
    assert [re.findall(r"add a row to `(\w+)`", how_to) for how_to in how_tos] == [[table] for table in TABLES]
    assert recipe.startswith("A recipe\n")


@pytest.mark.slow
def test_all_how_tos_work_together(tmp_path: Path) -> None:
    """The tests of the how-tos pass, and so do those of the tables with the new rows."""
    shutil.copytree(ROOT / "src", tmp_path / "src")
    shutil.copytree(ROOT / "tests", tmp_path / "tests")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    tests = [apply_how_to(how_to, tmp_path) for how_to in HOW_TOS[:-1]]
    add_recipe(HOW_TOS[-1], tmp_path)
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "src")}
    selections = (
        [*tests, *TESTS_OF_TABLES, "-k", QUICK],
        ["tests/test_recipes.py", "-k", "small_data_b1"],
    )
    for selected in selections:
        command = [sys.executable, "-m", "pytest", "-q", "--durations=5", *selected]
        assert subprocess.run(command, cwd=tmp_path, env=environment).returncode == 0

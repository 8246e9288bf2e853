"""The rules of the house that no other tool checks: sizes, mirrored tests, who prints, who ends the process."""

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "segformer"
TESTS = Path(__file__).parent
FILES = sorted(path for path in SRC.rglob("*.py") if path.stat().st_size)
NAMES = [str(path.relative_to(SRC)) for path in FILES]
DATA_ONLY = {"published.py", "__init__.py", "__main__.py"}  # without logic of their own


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_sizes_of_files() -> None:
    lines = {name: len(path.read_text().splitlines()) for name, path in zip(NAMES, FILES, strict=True)}
    assert {name: n for name, n in lines.items() if n > 350} == {}
    assert statistics.median(lines.values()) <= 140


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_sizes_of_functions(path: Path) -> None:
    long = {f.name: (f.end_lineno or 0) - f.lineno + 1 for f in functions(path)}
    assert {name: n for name, n in long.items() if n > 45} == {}


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_file_with_logic_has_its_test(path: Path) -> None:
    if path.name in DATA_ONLY or not list(functions(path)):
        return
    relative = path.relative_to(SRC)
    assert (TESTS / relative.parent / f"test_{relative.name}").is_file()


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_only_the_command_line_prints_and_exits(path: Path) -> None:
    if path.relative_to(SRC).parts[0] == "cli":
        return
    tree = ast.parse(path.read_text())
    imported = {alias.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    imported |= {(n.module or "").split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert "rich" not in imported
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not {"print", "sys.exit", "exit"} & set(calls)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_what_a_user_can_cause_is_a_user_error(path: Path) -> None:
    raised = [n.exc for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Raise) and n.exc is not None]
    names = {ast.unparse(exc.func) for exc in raised if isinstance(exc, ast.Call)}
    assert not names & {"ValueError", "FileNotFoundError", "FileExistsError", "OSError", "TypeError"}

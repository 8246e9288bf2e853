from pathlib import Path

import pytest

from segformer.cli import demo, demo_run


def test_arguments_are_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Path, int | None]] = []
    monkeypatch.setattr(demo_run, "run_demo", lambda out, steps: calls.append((out, steps)))
    demo.run([])
    demo.run(["--out", "elsewhere", "--steps", "3"])
    assert calls == [(Path("demo"), None), (Path("elsewhere"), 3)]

import io
from typing import Any

import pytest
from rich.console import Console

from segformer.cli import run_progress
from segformer.cli.run_progress import RunProgress
from segformer.training.reporter import StepReport


def report(step: int) -> StepReport:
    return StepReport(step=step, steps=160_000, loss=1.23456, images_per_second=12.34, seconds_left=12_000.0)


def play(progress: RunProgress) -> None:
    """A short run."""
    progress.note("note: [bold] is text")
    progress.start(160_000, 0)
    progress.advance(1000)
    progress.report(report(1000))
    progress.evaluating(3, 4)
    progress.evaluated("step 1000", {"mIoU": 0.5, "mAcc": 0.625})
    progress.report(report(1010))
    progress.stop()


def test_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 31.0, 40.0])
    monkeypatch.setattr(run_progress.time, "monotonic", lambda: next(times))
    output = io.StringIO()
    play(RunProgress(Console(file=output, width=80)))
    assert output.getvalue().splitlines() == [
        "note: [bold] is text",
        "step 1000/160000  loss 1.235  12.3 img/s  3:20:00 left",
        "step 1000: mIoU 0.5000  mAcc 0.6250",
    ]


def test_a_bar_on_a_terminal_of_80_columns() -> None:
    output = io.StringIO()
    console = Console(file=output, width=80, force_terminal=True, color_system=None, legacy_windows=False)
    play(RunProgress(console))
    text = output.getvalue()
    assert "step 1000: mIoU 0.5000  mAcc 0.6250" in text
    bar = next(line for line in reversed(text.splitlines()) if "train" in line)
    for part in ("1000/160000", "loss 1.235  mIoU 0.500  12.3 img/s", "3:20:00 left"):
        assert part in bar


def test_long_lines_are_not_broken() -> None:
    output = io.StringIO()
    RunProgress(Console(file=output, width=40)).note("x" * 100)
    assert output.getvalue() == "x" * 100 + "\n"


def test_a_second_run_starts_anew() -> None:
    console: Any = Console(file=io.StringIO(), width=80, force_terminal=True)
    progress = RunProgress(console)
    play(progress)
    play(progress)
    assert len(progress.bar.tasks) == 1

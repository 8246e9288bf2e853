from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segformer.training import journal as module
from segformer.training.journal import Journal, NullJournal
from segformer.training.reporter import StepReport
from segformer.training.run_folder import RunFolder, read_metrics
from segformer.training.task import Plan, Validation

PLAN = Plan(steps=100, batch_size=8, micro_batch_size=None, eval_every=50, log_every=10, seed=0, precision="fp32")


class FakeTask:
    """The parts of a task that a journal asks for."""

    plan = PLAN
    metric = "top1"
    labels = {"top1": "top-1"}  # noqa: RUF012
    split = "val"
    unit = "step"

    def counter(self, step: int) -> tuple[str, int]:
        return (self.unit, step) if self.unit == "step" else (self.unit, step // 10)

    def pictures(self, model: Any) -> Any:
        return np.zeros((4, 5, 3), np.uint8) if model == "with pictures" else None

    def write_page(self, model: Any, run_dir: Path, evaluation: Validation) -> Path:
        return run_dir / "report.html"


class Listener:
    """A reporter that remembers what it is told."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def note(self, line: str) -> None:
        self.heard.append(line)

    def start(self, steps: int, done: int) -> None:
        self.heard.append(("start", steps, done))

    def advance(self, step: int) -> None:
        self.heard.append(step)

    def report(self, report: StepReport) -> None:
        self.heard.append(report)

    def evaluating(self, done: int, total: int) -> None:
        self.heard.append((done, total))

    def evaluated(self, position: str, figures: Mapping[str, float]) -> None:
        self.heard.append((position, list(figures.items())))

    def stop(self) -> None:
        self.heard.append("stop")


class Clock:
    """A time that only this test moves."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def open_journal(run: Path, listener: Listener, *, start: int = 0, unit: str = "step") -> Journal:
    run.mkdir(exist_ok=True)
    task: Any = FakeTask()
    task.unit = unit
    return Journal(RunFolder(run), task, listener, start=start)


def test_steps_are_logged_with_their_speed(tmp_path: Path, clock: Clock) -> None:
    listener = Listener()
    with open_journal(tmp_path / "run", listener) as journal:
        for step in range(1, 11):
            clock.now += 0.5
            journal.step(step, 1.5 if step == 10 else None, 1e-3)
    assert read_metrics(tmp_path / "run") == [
        {"step": 10, "seconds": 5.0, "loss": 1.5, "lr": 1e-3, "images_per_second": 16.0}
    ]
    report = StepReport(step=10, steps=100, loss=1.5, images_per_second=16.0, seconds_left=45.0)
    assert listener.heard == [("start", 100, 0), *range(1, 11), report, "stop"]


def test_the_speed_is_an_average_that_forgets_the_warm_up_and_the_evaluations(tmp_path: Path, clock: Clock) -> None:
    with open_journal(tmp_path / "run", Listener()) as journal:
        clock.now += 60.0
        journal.step(1, 1.0, 1e-3)  # warming up
        clock.now += 1.0
        journal.step(2, 1.0, 1e-3)
        clock.now += 30.0
        journal.evaluated(2, Validation({"top1": 0.5}), None)
        clock.now += 30.0  # of saving
        journal.begin(2)
        clock.now += 4 * 2.0
        journal.step(6, 1.0, 1e-3)
    rates = [line["images_per_second"] for line in read_metrics(tmp_path / "run") if "loss" in line]
    average = 0.95**4 * 1.0 + (1 - 0.95**4) * 2.0
    assert rates == pytest.approx([8 / 60, 8 / 1.0, 8 / average])


@pytest.mark.parametrize(("unit", "line", "position"), [("step", {}, "step 20"), ("epoch", {"epoch": 2}, "epoch 2")])
def test_an_evaluation_is_logged(tmp_path: Path, clock: Clock, unit: str, line: dict[str, int], position: str) -> None:
    listener = Listener()
    figures = {"top5": 0.75, "top1": 0.5}
    with open_journal(tmp_path / "run", listener, unit=unit) as journal:
        journal.evaluating(1, 2)
        journal.evaluated(20, Validation(figures), None)
    assert read_metrics(tmp_path / "run") == [{"step": 20, "seconds": 0.0, **line, "val/top5": 0.75, "val/top1": 0.5}]
    # the deciding figure comes first, by the name that people give it
    assert listener.heard[1:-1] == [(1, 2), (position, [("top-1", 0.5), ("top5", 0.75)])]


def test_tensorboard_gets_figures_and_pictures(tmp_path: Path) -> None:
    with open_journal(tmp_path / "run", Listener()) as journal:
        journal.step(10, 1.5, 1e-3)
        journal.evaluated(10, Validation({"top1": 0.5}), "with pictures")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "lr", "images_per_second", "val/top1"}
    assert events.Tags()["images"] == ["val"]


def test_a_resumed_run_counts_its_seconds_on(tmp_path: Path, clock: Clock) -> None:
    for start in (0, 10):
        with open_journal(tmp_path / "run", Listener(), start=start) as journal:
            clock.now += 5.0
            journal.step(start + 10, 1.0, 1e-3)
    assert [line["seconds"] for line in read_metrics(tmp_path / "run")] == [5.0, 10.0]


def test_the_page_is_announced(tmp_path: Path) -> None:
    listener = Listener()
    with open_journal(tmp_path / "run", listener) as journal:
        journal.note("hello")
        journal.write_page(None, Validation({}))
    assert listener.heard[1:-1] == ["hello", f"report: {tmp_path / 'run' / 'report.html'}"]


def test_the_null_journal_takes_the_same_calls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with NullJournal() as journal:
        journal.begin(0)
        journal.step(1, 0.5, 1e-3)
        journal.evaluating(1, 2)
        journal.evaluated(1, Validation({}), None)
        journal.note("hello")
        journal.write_page(None, Validation({}))
    assert capsys.readouterr() == ("", "")

import logging

import pytest

from segformer.training import reporter
from segformer.training.reporter import LogReporter, SilentReporter, StepReport, clock, evaluation_line

STEP = StepReport(step=40, steps=200, loss=1.23456, images_per_second=12.34, seconds_left=75.0)


def test_lines() -> None:
    assert str(STEP) == "step 40/200  loss 1.235  12.3 img/s  1:15 left"
    assert evaluation_line("epoch 3", {"top-1": 0.5, "top-5": 1.0}) == "epoch 3: top-1 0.5000  top-5 1.0000"
    assert (clock(59), clock(60), clock(3600)) == ("0:59", "1:00", "1:00:00")


def test_the_log_gets_notes_and_evaluations(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="segformer.training.reporter")
    log = LogReporter()
    log.start(200, 0)
    log.note("100 % of it")  # no format string
    log.evaluating(1, 2)
    log.evaluated("step 40", {"mIoU": 0.5})
    log.stop()
    assert [record.message for record in caplog.records] == ["100 % of it", "step 40: mIoU 0.5000"]


def test_the_log_gets_a_step_every_30_seconds(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, logger="segformer.training.reporter")
    times = iter([100.0, 110.0, 131.0, 140.0, 162.0])
    monkeypatch.setattr(reporter.time, "monotonic", lambda: next(times))
    log = LogReporter()
    for _ in range(4):
        log.report(STEP)
    assert [record.message for record in caplog.records] == [str(STEP), str(STEP)]


def test_the_silent_one_says_nothing(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.DEBUG)
    silent = SilentReporter()
    silent.start(2, 0)
    silent.note("x")
    silent.advance(1)
    silent.report(STEP)
    silent.evaluating(1, 1)
    silent.evaluated("step 1", {"mIoU": 0.5})
    silent.stop()
    assert not caplog.records
    assert capsys.readouterr() == ("", "")

from segformer.training.progress import Progress


def test_a_run_that_has_not_begun() -> None:
    assert Progress() == Progress(step=0, evaluated=0, best=-1.0, best_step=0)


def test_progress_survives_trainer_pt() -> None:
    progress = Progress(step=7, evaluated=6, best=0.5, best_step=3)
    assert Progress.from_state(progress.to_state()) == progress


def test_what_version_0_1_0_wrote_is_read() -> None:
    segmentation = {"step": 7, "evaluated": 6, "best_miou": 0.5, "best_step": 3}
    assert Progress.from_state(segmentation) == Progress(step=7, evaluated=6, best=0.5, best_step=3)
    pretraining = {"step": 7, "evaluated": 6, "best_top1": 0.25}
    assert Progress.from_state(pretraining) == Progress(step=7, evaluated=6, best=0.25, best_step=0)

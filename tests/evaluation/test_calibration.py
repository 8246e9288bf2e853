import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from segformer.evaluation.calibration import BINS, ONE, TEMPERATURES, Calibration, count, expected_error


def drawn(number: int, sharpness: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores whose softmax is the truth, multiplied by ``sharpness``, and labels drawn from the truth."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(number, 5, generator=generator) * 2
    labels = torch.multinomial(scores.softmax(1), 1, generator=generator)[:, 0]
    return scores * sharpness, labels


def test_counts_are_those_of_torch_and_torchmetrics() -> None:
    scores, labels = drawn(4000, 1.7)
    nll, bins = count(scores, labels)
    for k in (0, ONE, 33):
        tempered = scores / TEMPERATURES[k]
        assert nll[k] == pytest.approx(torch.nn.functional.cross_entropy(tempered, labels, reduction="sum").item())
        expected = multiclass_calibration_error(tempered.softmax(1), labels, 5, n_bins=BINS, norm="l1").item()
        assert expected_error(bins[k]) == pytest.approx(expected, abs=1e-5)  # theirs sums in float32
        assert bins[k, :, 0].sum() == 4000
        assert bins[k, :, 2].sum() == (scores.argmax(1) == labels).sum()


def test_the_middle_temperature_is_1() -> None:
    assert TEMPERATURES[ONE] == pytest.approx(1.0)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.5])
def test_the_temperature_undoes_what_the_scores_were_multiplied_by(sharpness: float) -> None:
    halves = [count(*drawn(20_000, sharpness, seed)) for seed in (0, 1)]
    found = Calibration.from_counts(np.stack([nll for nll, _ in halves]), np.stack([bins for _, bins in halves]))
    assert found.temperature == pytest.approx(sharpness, rel=0.08)
    assert found.ece_after < 0.02
    assert found.ece > 0.05 or sharpness == 1.0
    assert found.nll_after <= found.nll


def test_one_half_alone_serves_for_both() -> None:
    nll, bins = count(*drawn(1000, 2.0))
    nothing = np.zeros_like(nll), np.zeros_like(bins)
    for order in ((0, 1), (1, 0)):
        pair = [(nll, bins), nothing]
        found = Calibration.from_counts(np.stack([pair[k][0] for k in order]), np.stack([pair[k][1] for k in order]))
        assert found.nll == pytest.approx(nll[ONE] / 1000)
    empty = Calibration.from_counts(np.stack([nothing[0]] * 2), np.stack([nothing[1]] * 2))
    assert empty.ece == 0


def test_bins_are_open_below_and_closed_above() -> None:
    confidence = 3 / 15
    scores = torch.log(torch.tensor([[confidence] + [(1 - confidence) / 7] * 7], dtype=torch.float64))
    _, bins = count(scores, torch.tensor([0]))
    assert bins[ONE, 2, 0] + bins[ONE, 3, 0] == 1  # at the edge, up to rounding
    _, bins = count(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
    assert bins[ONE, 7].tolist() == pytest.approx([1, 0.5, 0])  # (7/15, 8/15]

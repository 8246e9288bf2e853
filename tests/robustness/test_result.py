import json

import numpy as np
import pytest

from segformer.evaluation.metrics import Scores
from segformer.robustness.corruptions import corruption_groups, corruption_names
from segformer.robustness.result import Robustness

CLASSES = ("ground", "disc")


def test_the_summary_by_hand() -> None:
    clean = Scores(np.diag([80, 100]), CLASSES)
    cells = {}
    for name in corruption_names():
        for severity in range(1, 6):
            hit = 100 - 10 * severity if name in corruption_groups()["noise"] else 90
            cells[name, severity] = Scores(np.array([[hit, 100 - hit], [0, 0]]), CLASSES)
    result = Robustness(clean, cells, {})
    assert result.clean.miou == 1
    # One class has IoU `hit` %, the other, which is only predicted, 0: the mean is half of that.
    assert result.severities_in_mean("gaussian_noise") == (1, 2, 3)
    assert result.miou("gaussian_noise") == pytest.approx((0.45 + 0.40 + 0.35) / 3)
    assert result.severities_in_mean("fog") == (1, 2, 3, 4, 5)
    assert result.miou("fog") == pytest.approx(0.45)
    assert result.group_miou("noise") == pytest.approx(0.40)
    assert result.group_miou("blur") == pytest.approx(0.45)
    assert result.corrupted_miou == pytest.approx((12 * 0.45 + 4 * 0.40) / 16)
    assert result.retained(result.corrupted_miou) == pytest.approx(0.4375)
    np.testing.assert_allclose(result.retained_iou("shot_noise"), [0.8, 0.0])
    figures = result.to_json()
    assert figures["retained"] == 0.4375
    assert figures["groups"] == {"blur": 0.45, "noise": 0.4, "digital": 0.45, "weather": 0.45}
    assert figures["corruptions"]["shot_noise"]["severities"]["5"] == 0.25
    assert figures["corruptions"]["shot_noise"]["severities_in_mean"] == [1, 2, 3]
    assert figures["corruptions"]["shot_noise"]["retained_iou"] == {"ground": 0.8, "disc": 0.0}
    json.dumps(figures, allow_nan=False)


def test_a_summary_of_parts_and_of_nothing_right() -> None:
    nothing = Scores(np.array([[0, 5], [5, 0]]), CLASSES)
    result = Robustness(nothing, {("shot_noise", 5): nothing, ("fog", 2): nothing}, {})
    assert np.isnan(result.miou("shot_noise"))  # severity 5 does not count
    assert result.miou("fog") == 0
    assert result.corrupted_miou == 0
    assert np.isnan(result.retained(0.0))
    assert np.isnan(result.retained_iou("fog")).all()
    assert np.isnan(result.group_miou("blur"))
    json.dumps(result.to_json(), allow_nan=False)


def test_measured_corruptions_and_groups_keep_the_order_of_the_table() -> None:
    scores = Scores(np.eye(2, dtype=np.int64), CLASSES)
    result = Robustness(scores, {("fog", 2): scores, ("snow", 1): scores, ("shot_noise", 1): scores}, {})
    assert result.corruptions == ("shot_noise", "snow", "fog")
    assert result.groups == {"noise": ("shot_noise",), "weather": ("snow", "fog")}
    assert result.severities == (1, 2)
    assert result.severities_in_mean("fog") == (2,)

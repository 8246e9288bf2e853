"""Results of a robustness measurement that nobody measured."""

import numpy as np

from segformer.evaluation.metrics import Scores
from segformer.robustness.corruptions import SEVERITIES, corruption_names
from segformer.robustness.result import Robustness

SETTING = {"data": "toytown", "num_images": 2, "seed": 0, "frost": "drawn", "protocol": {"flip": False}}


def made_up(
    classes: tuple[str, ...], names: tuple[str, ...] | None = None, severities: tuple[int, ...] = SEVERITIES
) -> Robustness:
    """Scores that fall with severity, each corruption's a little below the one before."""

    def scores(right: int) -> Scores:
        count = len(classes)
        return Scores(np.eye(count, dtype=np.int64) * (right - 5) + 5, classes)

    order = corruption_names()
    cells = {(name, s): scores(300 - 40 * s - 2 * order.index(name)) for name in names or order for s in severities}
    return Robustness(scores(400), cells, SETTING)

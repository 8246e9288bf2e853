import re

import numpy as np
import pytest

from html_reader import Reader
from segformer.report.charts import line_chart


def heights(html: str, kind: str) -> list[float]:
    """The y of the first curve of that kind: 0 at the top of the chart, 1000 at its foot."""
    curves: list[str] = re.findall(rf'<polyline class="{kind}" points="([^"]*)"', html)
    return [float(place.split(",")[1]) for place in curves[0].split()]


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize(
    "points", [[(3.0, 0.0)], [(0.0, 5.0), (1.0, 5.0)], [(0.0, -1e-7), (1e9, 1e30)], [(10.0, 1.0), (0.0, 2.0)]]
)
def test_line_chart_draws_every_point(points: list[tuple[float, float]], smooth: bool) -> None:
    html = line_chart({"loss": points, "empty": []}, x_label="step", y_label="loss", smooth=smooth)
    Reader(html)
    assert len(heights(html, "line")) == len(points)
    assert not re.search("nan|inf", html)


def test_line_chart_without_values_says_so() -> None:
    curves: list[dict[str, list[tuple[float, float]]]] = [{}, {"loss": []}, {"loss": [(0.0, float("nan"))]}]
    for series in curves:
        assert line_chart(series, x_label="step", y_label="loss") == '<p class="soft">No values of loss to draw.</p>'


def test_line_chart_leaves_out_what_is_not_finite() -> None:
    points = [(0.0, 1.0), (1.0, float("nan")), (2.0, float("inf")), (3.0, 2.0)]
    html = line_chart({"loss": points}, x_label="step", y_label="loss")
    assert html == line_chart({"loss": [points[0], points[3]]}, x_label="step", y_label="loss")


def test_line_chart_names_the_lines_only_when_there_are_several() -> None:
    curve = [(0.0, 1.0), (1.0, 2.0)]
    assert "legend" not in line_chart({"mIoU": curve}, x_label="step", y_label="score")
    both = line_chart({"mIoU": curve, "accuracy": curve}, x_label="step", y_label="score")
    assert re.findall(r"([^>]*)</li>", both) == ["mIoU", "accuracy"]


def test_line_chart_has_round_ticks() -> None:
    html = line_chart({"loss": [(0.0, 0.013), (99_999.0, 0.988)]}, x_label="step", y_label="loss")
    assert re.findall(r'class="x"[^>]*>([^<]*)<', html) == ["0", "20k", "40k", "60k", "80k", "100k"]
    assert re.findall(r'class="y"[^>]*>([^<]*)<', html) == ["0.2", "0.4", "0.6", "0.8"]


def test_long_curve_is_thinned_but_keeps_its_spike() -> None:
    steps = np.arange(100_000)
    loss = np.random.default_rng(0).normal(1.0, 0.1, len(steps))
    loss[54_321] = 9.0
    html = line_chart({"loss": list(zip(steps, loss, strict=True))}, x_label="step", y_label="loss", smooth=True)
    assert len(html) < 60_000
    faint = sorted(heights(html, "faint"))
    assert faint[0] == pytest.approx(1000 / 102, abs=0.1)  # a percent of room above the spike
    assert faint[1] > 500


def test_moving_average_is_level_where_noise_is_not() -> None:
    points = [(float(step), float(step % 2)) for step in range(900)]
    html = line_chart({"a": points}, x_label="x", y_label="y", smooth=True)
    assert all(abs(height - 500) < 40 for height in heights(html, "line"))

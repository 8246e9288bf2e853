"""Line charts in HTML: curves and grid as SVG, tick labels as text."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from segformer.arrays import Array
from segformer.report.html import css_legend

NUM_LINE_COLORS = 6  # --c0 to --c5 in style.py
NUM_BUCKETS = 600  # parts into which a long curve is divided; each part is one or two pixels wide on the page
MAX_DOTTED = 30  # a curve with more points is drawn without dots


def line_chart(
    series: Mapping[str, Sequence[tuple[float, float]]], *, x_label: str, y_label: str, smooth: bool = False
) -> str:
    """Return a chart with one curve for each name in ``series``, drawn through the points (x, y) of that name.

    Points with NaN or an infinite value are left out.

    With ``smooth``, each curve is the moving average of its points; a faint line goes through the points themselves.
    """
    curves = {name: points for name in series if len(points := _finite(series[name]))}
    if not curves:
        return f'<p class="soft">No values of {escape(y_label)} to draw.</p>'
    x_axis, y_axis = (_axis(values) for values in np.concatenate(list(curves.values())).T)
    colors = [f"var(--c{i % NUM_LINE_COLORS})" for i in range(len(curves))]
    lines = "".join(
        f'<g stroke="{color}">{_curve(points, x_axis, y_axis, smooth=smooth)}</g>'
        for color, points in zip(colors, curves.values(), strict=True)
    )
    names = css_legend(list(curves), colors) if len(curves) > 1 else ""
    ends = ", ".join(f"{name} ends at {points[-1, 1]:.4g}" for name, points in curves.items())
    return (
        f'<figure class="chart"><figcaption><b>{escape(y_label)}</b>{names}</figcaption>'
        '<div class="plot"><svg viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(f"{y_label} over {x_label}: {ends}")}">{_grid(x_axis, y_axis)}{lines}</svg>'
        f'{_tick_labels(x_axis, y_axis)}</div><p class="x-label">{escape(x_label)}</p></figure>'
    )


class _Axis(NamedTuple):
    low: float
    high: float
    ticks: list[float]

    def permille(self, values: npt.ArrayLike) -> Array:
        return np.round((np.asarray(values, dtype=np.float64) - self.low) / (self.high - self.low) * 1000, 1)


def _axis(values: Array) -> _Axis:
    """Return an axis for the values, with about five ticks at multiples of 1, 2 or 5 times a power of ten."""
    low, high = float(values.min()), float(values.max())
    # The margin of 1 % shows the tick at 100,000 even if the steps end at 99,999, and centers a constant curve.
    margin = (high - low) / 100 or abs(low) / 10 or 1.0
    low, high = low - margin, high + margin
    least_step = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(least_step))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least_step)
    return _Axis(low, high, [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)])


def _finite(points: Sequence[tuple[float, float]]) -> Array:
    array = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    return array[np.isfinite(array).all(axis=1)]


def _moving_average(points: Array) -> Array:
    window = np.ones(len(points) // 30 | 1)
    y = np.convolve(points[:, 1], window, "same") / np.convolve(np.ones(len(points)), window, "same")
    return np.column_stack([points[:, 0], y])


def _thin(points: Array) -> Array:
    """Reduce a long curve to its ends and the lowest and highest point of each of 600 parts, so no spike is lost."""
    if len(points) <= 2 * NUM_BUCKETS:
        return points
    keep = {0, len(points) - 1}
    for bucket in np.array_split(np.arange(len(points)), NUM_BUCKETS):
        y = points[bucket, 1]
        keep |= {int(bucket[y.argmin()]), int(bucket[y.argmax()])}
    return points[sorted(keep)]


def _coordinates(points: Array, x_axis: _Axis, y_axis: _Axis) -> list[str]:
    x, y = _thin(points).T
    return [f"{a:g},{b:g}" for a, b in zip(x_axis.permille(x), 1000 - y_axis.permille(y), strict=True)]


def _curve(points: Array, x_axis: _Axis, y_axis: _Axis, *, smooth: bool) -> str:
    line = _coordinates(_moving_average(points) if smooth else points, x_axis, y_axis)
    faint = f'<polyline class="faint" points="{" ".join(_coordinates(points, x_axis, y_axis))}"/>' if smooth else ""
    dots = f'<path class="dot" d="{"".join(f"M{xy}h0" for xy in line)}"/>' if len(line) <= MAX_DOTTED else ""
    return f'{faint}<polyline class="line" points="{" ".join(line)}"/>{dots}'


def _grid(x_axis: _Axis, y_axis: _Axis) -> str:
    upright = "".join(f"M{x:g},0V1000" for x in x_axis.permille(x_axis.ticks))
    level = "".join(f"M0,{1000 - y:g}H1000" for y in y_axis.permille(y_axis.ticks))
    return f'<path class="grid" d="{upright}{level}"/>'


def _tick_labels(x_axis: _Axis, y_axis: _Axis) -> str:
    """Return the tick labels as HTML, because text in the SVG would be stretched with the drawing."""
    labels = [("x", "left", tick, x_axis.permille(tick)) for tick in x_axis.ticks]
    labels += [("y", "bottom", tick, y_axis.permille(tick)) for tick in y_axis.ticks]
    return "".join(
        f'<span class="{name}" style="{side}:{permille / 10:.4g}%" aria-hidden="true">{_short(tick)}</span>'
        for name, side, tick, permille in labels
    )


def _short(value: float) -> str:
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if size <= abs(value) < 1000 * size:
            return f"{value / size:.6g}{suffix}"
    return f"{value:.6g}".replace("e-0", "e-")

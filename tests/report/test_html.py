import base64
import io
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segformer.report.html import (
    class_table,
    columns,
    confusion,
    facts,
    key_values,
    legend,
    line_chart,
    page,
    paragraph,
    pictures,
    section,
    table,
    thumbnail,
    write_page,
)

HOSTILE = "<script>alert(\"1\" & '2')</script>"
DASH = "\N{EN DASH}"
VOID_TAGS = {"meta", "link", "img"}
PALETTE = [(128, 64, 128), (0, 0, 142)]


class Reader(HTMLParser):
    """Checks that every tag is closed in order; keeps what the browser would make of the page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def photograph(height: int, width: int) -> npt.NDArray[np.uint8]:
    noise = np.random.default_rng(0).integers(0, 40, (height, width, 3))
    return (noise + np.linspace(0, 200, width)[:, None]).astype(np.uint8)


def mask(height: int, width: int) -> npt.NDArray[np.uint8]:
    labels = (np.indices((height, width)).sum(0) > width).astype(int)
    coloured: npt.NDArray[np.uint8] = np.asarray(PALETTE, np.uint8)[labels]
    return coloured


def embedded(html: str) -> list[Image.Image]:
    uris = re.findall(r'src="data:image/\w+;base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(uri))) for uri in uris]


def heights(html: str, kind: str) -> list[float]:
    """The y of the first curve of that kind: 0 at the top of the chart, 1000 at its foot."""
    curves: list[str] = re.findall(rf'<polyline class="{kind}" points="([^"]*)"', html)
    return [float(place.split(",")[1]) for place in curves[0].split()]


def whole_page(text: str) -> str:
    curve = [(0.0, 1.0), (1.0, 0.5)]
    return page(
        text,
        text,
        section(text, paragraph(text), facts({text: text})),
        section(text, line_chart({text: curve, "b": curve}, x_label=text, y_label=text, smooth=True)),
        section(text, columns(line_chart({}, x_label=text, y_label=text), key_values({text: text}, {text: text}))),
        section(text, confusion(np.array([[1, 1], [0, 0]]), [text, "car"])),
        section(text, table([text, "mIoU"], [[text, 0.5], [text, None]])),
        section(text, class_table([text, "car"], PALETTE, {text: [0.5, float("nan")]})),
        section(text, legend([text, "car"], PALETTE), pictures([(text, [(text, photograph(8, 12))])])),
    )


def test_page_is_well_formed_and_requests_nothing() -> None:
    html = whole_page("Training")
    loads = [value or "" for name, value in Reader(html).attributes if name in {"src", "href", "srcset", "data"}]
    assert loads
    assert all(load.startswith("data:") for load in loads)
    assert not re.search(r"https?:|url\(|@import", html)


def test_every_text_is_escaped() -> None:
    hostile, harmless = Reader(whole_page(HOSTILE)), Reader(whole_page("Training"))
    assert hostile.tags == harmless.tags
    assert hostile.text == harmless.text.replace("Training", HOSTILE)
    texts = [(name, value and value.replace("Training", HOSTILE)) for name, value in harmless.attributes]
    assert hostile.attributes == texts


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


def test_table_aligns_numbers_and_dashes_what_is_missing() -> None:
    html = table(["name", "mIoU", "images"], [["a", 0.73219, 1234], ["b", None, 5], ["c", float("nan"), 0]])
    assert re.findall(r'<td class="number">([^<]*)<', html) == ["0.732", "1,234", DASH, "5", DASH, "0"]
    assert '<th>name</th><th class="number">mIoU</th>' in html


def test_table_shows_small_numbers() -> None:
    assert re.findall(r"<td[^>]*>([^<]*)<", table(["lr", "zero"], [[6e-5, 0.0]])) == ["6.00e-05", "0.000"]


def test_table_may_be_empty() -> None:
    Reader(table(["name", "mIoU"], []))


def test_class_table_draws_bars_and_dashes_an_absent_class() -> None:
    html = class_table(["road", "car"], PALETTE, {"IoU": [0.5, float("nan")], "accuracy": [1.0, float("nan")]})
    road, car = re.findall(r"<tr>(<td.*?)</tr>", html)
    assert "rgb(128,64,128)" in road
    assert re.findall(r"width:([^\"]*)", road) == ["50.0%", "100.0%"]
    assert re.findall(r"([^>]*)</td>", road)[1:] == ["0.500", "1.000"]
    assert re.findall(r"([^>]*)</td>", car)[1:] == [DASH, DASH]
    assert "width:" not in car


def test_class_table_wants_one_score_per_class() -> None:
    with pytest.raises(ValueError, match="shorter"):
        class_table(["road", "car"], PALETTE, {"IoU": [0.5]})


def test_key_values_marks_what_has_a_note() -> None:
    html = key_values({"steps": "7", "lr": "0.1"}, {"steps": "2000 before"})
    assert re.findall(r"<div( class=\"marked\")?><dt>(\w+)", html) == [(' class="marked"', "steps"), ("", "lr")]
    assert "<dd>7<small>2000 before</small></dd>" in html
    assert "marked" not in key_values({"steps": "7"})


def test_confusion_has_a_row_per_label() -> None:
    html = confusion(np.array([[997, 3, 0], [0, 0, 0], [750, 0, 250]]), ["road", "car", "tree"])
    head, *rows = re.findall(r"<tr>(.*?)</tr>", html)
    assert re.findall(r"<span>(\w+)", head) == ["road", "car", "tree"]
    assert [re.findall(r">([^<>]*)</t[hd]>", row) for row in rows] == [
        ["road", "100", "", ""],
        ["car", "", "", ""],
        ["tree", "75", "", "25"],
    ]
    assert 'title="tree, predicted as road: 75.0 %"' in rows[2]
    assert re.findall(r"--share:([\d.]+)", html) == ["1.00", "0.75", "0.25"]
    assert re.findall(r'class="([\w ]+)"[^>]*>(\d*)</td>', html) == [
        ("own strong", "100"), ("own", ""), ("strong", "75"), ("own", "25")
    ]  # fmt: skip


@pytest.mark.parametrize(("num_classes", "numbers"), [(30, 30), (31, 0), (60, 0)])
def test_confusion_of_many_classes_has_colours_alone(num_classes: int, numbers: int) -> None:
    html = confusion(np.eye(num_classes, dtype=np.int64), [f"class {k}" for k in range(num_classes)])
    Reader(html)
    assert html.count(">100</td>") == numbers
    assert html.count("--share:1.00") == num_classes


def test_confusion_of_too_many_classes_is_a_sentence() -> None:
    html = confusion(np.eye(61, dtype=np.int64), [f"class {k}" for k in range(61)])
    assert html == "<p>A map of 61 x 61 classes would be too fine to read: it is left out.</p>"


def test_thumbnails_fit_and_never_grow() -> None:
    assert thumbnail(photograph(100, 400), 200, 640).size == (200, 50)
    assert thumbnail(photograph(100, 400), 640, 50).size == (200, 50)
    assert thumbnail(photograph(20, 30), 200, 200).size == (30, 20)


def test_pictures_are_embedded_at_their_size() -> None:
    images = [("image", photograph(60, 90)), ("label", mask(60, 90))]
    html = pictures([("0001.png", images)])
    photo, label = embedded(html)
    assert (photo.format, photo.size) == ("JPEG", (90, 60))
    assert (label.format, label.size) == ("PNG", (90, 60))
    assert np.array_equal(np.asarray(label), mask(60, 90))
    assert 'alt="0001.png: image" width="90" height="60"' in html


@pytest.mark.parametrize(("size", "shrunk"), [((320, 1280), (640, 160)), ((1280, 640), (320, 640))])
def test_large_pictures_are_shrunk(size: tuple[int, int], shrunk: tuple[int, int]) -> None:
    html = pictures([("a", [("image", photograph(*size)), ("label", mask(*size))])])
    photo, label = embedded(html)
    assert photo.size == label.size == shrunk
    assert {colour for _, colour in label.getcolors() or []} == set(PALETTE)


def test_write_page_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    write_page(path, "new \N{EN DASH}")
    assert path.read_text(encoding="utf-8") == "new \N{EN DASH}"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failing", ["write", "replace"])
def test_write_page_that_fails_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    path = tmp_path / "report.html"
    path.write_text("old")
    html = "new"
    if failing == "replace":
        monkeypatch.setattr(os, "replace", fail)
    else:
        html = "half written, then not encodable: \ud800"
    with pytest.raises((OSError, UnicodeEncodeError)):
        write_page(path, html)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]

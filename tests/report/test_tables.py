import re

import numpy as np
import pytest

from html_reader import Reader
from segformer.report.tables import class_table, confusion, table

DASH = "\N{EN DASH}"
PALETTE = [(128, 64, 128), (0, 0, 142)]


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
def test_confusion_of_many_classes_has_colors_alone(num_classes: int, numbers: int) -> None:
    html = confusion(np.eye(num_classes, dtype=np.int64), [f"class {k}" for k in range(num_classes)])
    Reader(html)
    assert html.count(">100</td>") == numbers
    assert html.count("--share:1.00") == num_classes


def test_confusion_of_too_many_classes_is_a_sentence() -> None:
    html = confusion(np.eye(61, dtype=np.int64), [f"class {k}" for k in range(61)])
    assert html == "<p>The confusion matrix of 61 classes is left out, because it would be too large to read.</p>"

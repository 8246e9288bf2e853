import os
import re
from pathlib import Path

import numpy as np
import pytest

from html_reader import Reader
from segformer.errors import UserError
from segformer.report import (
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
    write_page,
)

HOSTILE = "<script>alert(\"1\" & '2')</script>"
PALETTE = [(128, 64, 128), (0, 0, 142)]


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
        section(text, legend([text, "car"], PALETTE), pictures([(text, [(text, np.zeros((8, 12, 3), np.uint8))])])),
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


def test_key_values_marks_what_has_a_note() -> None:
    html = key_values({"steps": "7", "lr": "0.1"}, {"steps": "2000 before"})
    assert re.findall(r"<div( class=\"marked\")?><dt>(\w+)", html) == [(' class="marked"', "steps"), ("", "lr")]
    assert "<dd>7<small>2000 before</small></dd>" in html
    assert "marked" not in key_values({"steps": "7"})


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
    with pytest.raises((UserError, UnicodeEncodeError)):
        write_page(path, html)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]

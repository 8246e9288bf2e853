import json
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import draw_pair
from networks import FakeNetwork
from receptive_field_maps import FIELDS, made_fields
from segformer.config import Preprocessing
from segformer.models.build import build_model
from segformer.receptive_field.page import AttendedImage, attend, mass_by_distance, write_results

ABOUT = {"data": "streets <1>, val", "size": "64 x 64"}


class Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.images = 0
        self.open = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open = tag
        self.images += tag == "img"

    def handle_data(self, data: str) -> None:
        if self.open == "td":
            self.cells.append(data)


class SomeSample:
    name = "drawn"

    def read(self, decoding: object = None) -> tuple[np.ndarray, np.ndarray]:
        return draw_pair(1, (64, 80))


def test_numbers_in_the_json_are_those_of_the_maps(tmp_path: Path) -> None:
    write_results(tmp_path, FIELDS, ABOUT, AttendedImage(draw_pair(0, (64, 64))[0], ()))
    written = json.loads((tmp_path / "erf.json").read_text())
    assert written["size"] == "64 x 64"
    assert written["models"]["ours"]["images"] == 2
    assert "decoder" not in written["models"]["theirs <b>"]
    stage = written["models"]["ours"]["stage 4"]
    assert (stage["stride"], stage["area_50"], stage["area_95"]) == (8, 128, 244)  # of 16 x 16 pixels
    assert stage["share_of_image_95"] == 244 / 64**2
    assert stage["side_50"] == 128**0.5
    assert (stage["window"], stage["share_outside_window"]) == (16, 0.0)
    assert written["models"]["ours"]["decoder"]["share_outside_window"] == pytest.approx(1 - 256 / 576)


def test_the_page_has_every_map_and_number(tmp_path: Path) -> None:
    write_results(tmp_path, FIELDS, ABOUT, AttendedImage(draw_pair(0, (64, 64))[0], ()))
    html = (tmp_path / "erf.html").read_text()
    parsed = Text()
    parsed.feed(html)
    assert parsed.images == 2 * (3 + 2)  # each map whole and enlarged
    assert parsed.cells[:9] == ["ours", "stage 3", "4", "32", "61", "1.5\xa0%", "8", "5", "0.0\xa0%"]
    assert len(parsed.cells) == 9 * 5
    assert "<script" not in html
    assert "http" not in html.partition("</head>")[2]
    assert "theirs &lt;b&gt;" in html
    assert "theirs <b>" not in html
    assert "Attention" not in html
    assert Image.open(tmp_path / "erf.png").size[0] > 3 * 240


def test_the_curve_ends_at_all_of_the_mass_in_the_corner() -> None:
    curve = mass_by_distance(FIELDS["ours"]["stage 4"])
    assert len(curve) == 100
    assert curve[-1] == (pytest.approx(32 * 2**0.5), 1.0)
    assert all(a[1] <= b[1] for a, b in pairwise(curve))


def test_attention_of_every_head_is_shown(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_model("mit_b0", num_classes=3, preprocessing=Preprocessing(short_side=64, long_side=64)).eval()
    picture = attend(model, SomeSample(), (64, 64))
    assert picture.pixels.shape == (64, 64, 3)
    assert len(picture.attention) == 8
    write_results(tmp_path, FIELDS, ABOUT, picture)
    parsed = Text()
    parsed.feed((tmp_path / "erf.html").read_text())
    assert parsed.images == 10 + 1 + 8 + (1 + 2 + 5 + 8)


def test_a_fused_model_attends_and_a_strangers_network_has_no_such_section(tmp_path: Path) -> None:
    model = build_model("mit_b0", num_classes=3, preprocessing=Preprocessing(short_side=64, long_side=64)).eval()
    assert len(attend(model.fuse(), SomeSample(), (64, 64)).attention) == 8
    fake = attend(FakeNetwork(), SomeSample(), (64, 64))
    assert fake.pixels.shape == (64, 64, 3)
    write_results(tmp_path, {"fake": made_fields("logits")}, ABOUT, fake)
    assert "Attention" not in (tmp_path / "erf.html").read_text()

import numpy as np

from receptive_field_maps import FIELDS, made_fields
from segformer.receptive_field.field import ReceptiveField
from segformer.receptive_field.numbers import field_numbers, number_table, numbers, summary


def test_the_summary_is_of_the_deepest_stage_and_the_decoder() -> None:
    ours, theirs = FIELDS.values()
    assert summary(ours) == "smallest area with 95 % of the mass: stage 4 6.0 % of the image, decoder 13.4 %"
    assert summary(theirs) == "smallest area with 95 % of the mass: stage 4 6.0 % of the image"
    assert summary(made_fields("logits")) == "smallest area with 95 % of the mass: logits 1.5 % of the image"


def test_the_numbers_of_a_square_by_hand() -> None:
    square = np.zeros((64, 64))
    square[32 - 8 : 32 + 8, 32 - 8 : 32 + 8] = 1
    found = field_numbers(ReceptiveField(square, 8))
    assert found["area_50"] == 128
    assert found["area_95"] == 244  # of 256, the first that hold 95 %
    assert found["share_of_image_95"] == 244 / 64**2
    assert found["side_50"] == 128**0.5
    assert (found["window"], found["share_outside_window"]) == (16, 0.0)


def test_every_output_of_every_network_has_a_row() -> None:
    headings, rows = number_table(FIELDS)
    assert all(len(row) == len(headings) for row in rows)
    assert [tuple(row[:2]) for row in rows] == [
        (label, output) for label, outputs in numbers(FIELDS).items() for output in outputs if output != "images"
    ]

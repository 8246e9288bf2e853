from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segformer.checkpoints.format import classes_in_meta, palette_in_meta
from segformer.checkpoints.formats import FORMATS
from segformer.checkpoints.weight_files import Checkpoint
from segformer.config import ModelCard, Preprocessing
from segformer.errors import UserError
from segformer.models.build import model_config


def card(**options: Any) -> ModelCard:
    pixels = Preprocessing(resize="squash", short_side=64, long_side=96, mean=(1.5, 2.0, 3.0))
    return ModelCard.for_classes(model_config("mit_b0", **options), 3, pixels)


def with_meta(**meta: Any) -> Checkpoint:
    return Checkpoint(Path("model.pth"), {}, meta, {}, {})


@pytest.mark.parametrize(
    ("given", "expected"), [(["a ", "b"], ("a", "b")), (("a",), ("a",)), ("abc", ()), (None, ()), (3, ())]
)
def test_class_names_in_a_file(given: Any, expected: tuple[str, ...]) -> None:
    assert classes_in_meta(with_meta(CLASSES=given)) == expected
    assert classes_in_meta(with_meta()) == ()


@pytest.mark.parametrize(
    ("given", "expected"),
    [([[1, 2, 3], (4, 5, 6)], ((1, 2, 3), (4, 5, 6))), ([[1, 2]], ()), (["abc"], ()), (None, ()), (3, ())],
)
def test_a_palette_in_a_file(given: Any, expected: tuple[Any, ...]) -> None:
    assert palette_in_meta(with_meta(PALETTE=given)) == expected


def test_losses_of_constants_come_before_what_is_left_behind() -> None:
    notes = FORMATS["smp"].losses(card(norm_eps=1e-5))
    assert notes[0] == (
        "segmentation-models-pytorch computes with norm_eps 1e-06, this model with 1e-05: logits will differ"
    )
    assert notes[1].endswith("align_corners=True, this model with False: masks will differ")
    assert notes[2].endswith("holds no class names and no palette")
    assert "resize squash into 96 x 64, sides to multiples of 32, mean 1.5 2 3, std" in notes[3]
    assert len(notes) == 4
    assert FORMATS["hf"].losses(card(norm_eps=1e-5, embed_norm_eps=1e-5)) == []


def test_parts_that_a_format_cannot_hold() -> None:
    FORMATS["hf"].check_card(card())
    for part, known in (("decoder", "all_mlp"), ("encoder", "mit_b0, mit_b1, mit_b2, mit_b3, mit_b4, mit_b5")):
        model: Any = replace(card().model, **{part: "other"})
        with pytest.raises(UserError) as error:
            FORMATS["hf"].check_card(replace(card(), model=model))
        assert str(error.value) == (
            f"transformers (segmentation) cannot hold the {part} other, only {known}; convert to segformer instead"
        )

from pathlib import Path

import pytest
import torch

from checkpoints.formats.test_nvlabs import encoder_shapes, filled, segmentation_shapes
from segformer.checkpoints import foreign
from segformer.checkpoints.foreign import palette_for, recognize, translate
from segformer.checkpoints.formats import FORMATS
from segformer.checkpoints.weight_files import Checkpoint
from segformer.config import default_palette
from segformer.data.sources import SOURCES
from segformer.errors import UserError

STATE = filled(segmentation_shapes())


def test_the_longest_signature_wins_whatever_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    biased = STATE | {"decode_head.linear_fuse.conv.bias": torch.zeros(256)}
    for rows in (FORMATS, dict(reversed(FORMATS.items()))):
        monkeypatch.setattr(foreign, "FORMATS", rows)
        assert recognize(biased)[0] is FORMATS["tao"]
        assert recognize(STATE)[0] is FORMATS["nvlabs"]
        assert recognize(filled(encoder_shapes()))[1].name == "NVlabs (encoder)"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("layer1.0.conv1.weight", "it looks like a ResNet"),
        ("pos_embed", "it looks like a ViT or PVT"),
        ("layers.0.blocks.0.attn.relative_position_bias_table", "it looks like a Swin Transformer"),
        ("downsample_layers.0.0.weight", "it looks like a ConvNeXt"),
        ("fc.weight", rf"of a known format \({', '.join(FORMATS)}\); the first of its 1 tensors is 'fc\.weight'"),
    ],
)
def test_other_models_are_named(name: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^not a SegFormer checkpoint.*{message}"):
        recognize({name: torch.zeros(1)})


def test_a_translation_keeps_what_the_user_called_it_and_names_the_file_of_an_error() -> None:
    path = Path("folder/model.pth")
    weights = translate(Checkpoint(path, STATE, {}, {}, {}), "someone/model")
    assert weights.source == "someone/model"
    assert weights.card is not None
    assert weights.card.provenance == {"source": "someone/model", "layout": "NVlabs (segmentation)"}
    assert weights.card.license == "unknown"
    half = {name: tensor.half() if tensor.ndim else tensor for name, tensor in STATE.items()}
    state = translate(Checkpoint(path, half, {}, {}, {}), "someone/model").state
    assert {tensor.dtype for tensor in state.values()} == {torch.float32, torch.int64}
    with pytest.raises(UserError, match=r"^folder/model\.pth: unknown tensor 'extra'"):
        translate(Checkpoint(path, STATE | {"extra": torch.zeros(1)}, {}, {}, {}), "someone/model")


@pytest.mark.parametrize("name", [name for name, row in SOURCES.items() if row.classes and row.palette])
def test_the_palette_of_a_data_set_in_the_table(name: str) -> None:
    row = SOURCES[name]
    assert row.classes is not None
    assert palette_for(tuple(f"{known.upper()}; also" for known in row.classes)) == row.palette


def test_unknown_classes_get_distinct_colors() -> None:
    assert palette_for(("a", "b")) == default_palette(2)

"""What the base classes give an encoder or decoder that says no more than it must."""

import pytest
import torch
from torch import nn

from models.small_parts import SmallDecoder, SmallEncoder
from segformer.config import ModelConfig
from segformer.errors import UserError
from segformer.models.interfaces import Decoder, Encoder


def encoder() -> SmallEncoder:
    return SmallEncoder(ModelConfig(encoder="small", decoder_channels=8, in_channels=5))


def test_names_that_follow_from_the_stages() -> None:
    assert encoder().first_convolution() == "levels.0.0"
    assert encoder().min_size == 16
    assert encoder().named_attention() == {}
    assert len(list(encoder().norm_parameters())) == 6


def test_a_stage_that_is_itself_the_convolution() -> None:
    class Bare(Encoder):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 3)

        def named_stages(self) -> dict[str, nn.Module]:
            return {"stem": self.stem}

    assert Bare().first_convolution() == "stem"


def test_frozen_stages_are_evaluated_and_keep_their_weights() -> None:
    model = encoder().train()
    model.freeze(2)
    assert [level.training for level in model.levels] == [False, False, True]
    assert [p.requires_grad for p in model.parameters()] == [False] * 8 + [True] * 4
    model.freeze(0)
    with pytest.raises(UserError, match=r"train\.frozen_stages must be at most 3 for this encoder, got 4"):
        model.freeze(4)
    model.recompute(True)  # nothing to do, and no error


def test_a_frozen_norm() -> None:
    class Normed(SmallDecoder):
        def __init__(self) -> None:
            super().__init__((4, 4), 2, 8)
            self.norm = nn.BatchNorm2d(8)

    decoder = Normed().train()
    decoder.freeze_norm()
    assert not decoder.norm.training
    assert not decoder.norm.weight.requires_grad
    assert decoder.classifier.training


def test_outputs_and_the_literal_form_are_the_logits_by_default() -> None:
    class Plain(Decoder):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = nn.Conv2d(4, 2, 1)

        def features(self, maps: list[torch.Tensor]) -> torch.Tensor:  # type: ignore[override]
            return maps[0]

    decoder, maps = Plain(), [torch.randn(1, 4, 3, 3)]
    (logits,) = decoder.outputs(maps)
    assert torch.equal(logits, decoder.classifier(maps[0]))
    assert torch.equal(decoder.literal()(maps), logits)

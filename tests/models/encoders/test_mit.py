import math

import pytest
import torch
from torch import nn

from segformer.models.encoders.mit import MixTransformer, OverlapPatchEmbed
from segformer.published import MIT_SIZES


@pytest.mark.parametrize(
    ("encoder", "parameters"),
    [
        ("mit_b0", 3_319_392),
        ("mit_b1", 13_151_424),
        ("mit_b2", 24_196_288),
        ("mit_b3", 44_072_128),
        ("mit_b4", 60_842_688),
        ("mit_b5", 81_443_008),
    ],
)
def test_parameters_as_published(encoder: str, parameters: int) -> None:
    with torch.device("meta"):
        model = MixTransformer(MIT_SIZES[encoder])
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_stochastic_depth_rises_linearly_over_all_blocks() -> None:
    model = MixTransformer(MIT_SIZES["mit_b2"], drop_path=0.1)
    rates = [block.drop_path.rate for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0.1 * i / 15 for i in range(16)])


def test_eps_of_each_norm() -> None:
    model = MixTransformer(MIT_SIZES["mit_b0"], norm_eps=1e-3, embed_norm_eps=1e-4)
    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm):
            after_reduction = ".attention.norm" in name or ".embed.norm" in name
            assert module.eps == (1e-4 if after_reduction else 1e-3), name


def test_initialization() -> None:
    torch.manual_seed(0)
    model = MixTransformer(MIT_SIZES["mit_b1"])
    block = model.stages[3].blocks[0]
    assert block.ffn.expand.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.ffn.depthwise.weight.std().item() == pytest.approx(math.sqrt(2 / 9), rel=0.05)
    embed = model.stages[0].embed
    assert isinstance(embed, OverlapPatchEmbed)
    assert embed.project.weight.std().item() == pytest.approx(math.sqrt(2 / (49 * 64)), rel=0.05)
    assert all(p.abs().sum() == 0 for n, p in model.named_parameters() if n.endswith("bias"))

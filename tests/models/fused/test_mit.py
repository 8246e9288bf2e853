"""A block of the encoder in bands of rows computes the same as the block."""

from collections.abc import Iterator

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from segformer.models.encoders.mit import NUM_HEADS, REDUCTIONS, Block, MixTransformer
from segformer.models.fused import mit as module
from segformer.models.fused import onednn
from segformer.models.fused.mit import BandedBlock, fuse_mit
from segformer.published import MIT_SIZES

STAGES = tuple(zip((32, 64, 160, 256), NUM_HEADS, REDUCTIONS, strict=True))


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bands of a row or two."""
    monkeypatch.setattr(module, "BAND", 40_000)
    monkeypatch.setattr(module, "WHOLE", 0)


def block_of(stage: int) -> Block:
    channels, heads, reduction = STAGES[stage]
    torch.manual_seed(stage)
    block = Block(channels, heads, reduction, drop_path=0.5, norm_eps=1e-6, embed_norm_eps=1e-5).eval()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return block


@torch.inference_mode()
def both(block: Block, tokens: torch.Tensor, size: tuple[int, int]) -> Iterator[torch.Tensor]:
    yield block(tokens, size)
    yield BandedBlock(block)(tokens, size)


@pytest.mark.parametrize("usable", [True, False])
@pytest.mark.parametrize("size", [(8, 8), (17, 9), (31, 12), (64, 40)])
@pytest.mark.parametrize("stage", range(4))
@pytest.mark.usefixtures("narrow")
def test_equal_to_the_block(stage: int, size: tuple[int, int], usable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "ONEDNN", onednn.ONEDNN if usable else frozenset())
    tokens = torch.randn(2, size[0] * size[1], STAGES[stage][0], generator=torch.Generator().manual_seed(0))
    given = tokens.clone()
    whole, divided = both(block_of(stage), tokens, size)
    assert (whole - divided).abs().max() < 1e-5 * whole.abs().max()
    assert torch.equal(tokens, given)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.usefixtures("narrow")
def test_other_precisions(dtype: torch.dtype) -> None:
    tokens = torch.randn(1, 17 * 9, 64, generator=torch.Generator().manual_seed(0))
    exact, _ = both(block_of(1).double(), tokens.double(), (17, 9))
    _, divided = both(block_of(1).to(dtype), tokens.to(dtype), (17, 9))
    assert divided.dtype == dtype
    assert (exact - divided).abs().max() < 40 * torch.finfo(dtype).eps * exact.abs().max()


@pytest.mark.parametrize("height", [1, 7, 8, 64, 100])
@pytest.mark.parametrize("multiple", [1, 4, 8])
def test_bands_cover_all_rows(height: int, multiple: int) -> None:
    for row in (1, module.BAND // 7, module.BAND, 9 * module.BAND):
        divided = module.bands(height, row, multiple)
        assert [k for band in divided for k in range(band.start, band.stop)] == list(range(height))
        assert all(len(range(height)[band]) % multiple == 0 for band in divided[:-1])
        assert len(divided) == 1 or max(b.stop - b.start for b in divided) * row <= module.BAND + multiple * row


def test_a_gradient_is_still_recorded() -> None:
    block = block_of(0)
    tokens = torch.randn(1, 64, 32, requires_grad=True)
    BandedBlock(block)(tokens, (8, 8)).sum().backward()
    assert tokens.grad is not None
    assert block.ffn.expand.weight.grad is not None


class Adapted(torch.nn.Linear):
    """Has the weight of a linear layer, and more."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return super().forward(tokens) + 1.0


@pytest.mark.parametrize("name", ["query", "key_value", "output"])
def test_what_takes_the_place_of_a_layer_is_called(name: str) -> None:
    block = block_of(0)
    old = getattr(block.attention, name)
    new = Adapted(old.in_features, old.out_features)
    new.load_state_dict(old.state_dict())
    setattr(block.attention, name, new)
    whole, divided = both(block, torch.randn(1, 64, 32, generator=torch.Generator().manual_seed(0)), (8, 8))
    assert (whole - divided).abs().max() < 1e-5 * whole.abs().max()


def test_the_hidden_map_is_never_whole() -> None:
    block = BandedBlock(block_of(0))
    size = (128, 512)
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        block(torch.randn(1, size[0] * size[1], 32), size)
    whole = 128 * 128 * 512 * 4
    assert max(event.self_cpu_memory_usage for event in found.events()) <= whole / 4  # a map of tokens; hidden: a 16th


def test_the_fused_encoder_is_evaluated_shares_and_does_not_recompute() -> None:
    encoder = MixTransformer(MIT_SIZES["mit_b0"])
    encoder.recompute(True)
    fused = fuse_mit(encoder)
    assert not fused.training
    assert all(not stage.recompute and type(stage.blocks[0]) is BandedBlock for stage in fused.stages)
    assert all(stage.recompute and type(stage.blocks[0]) is Block for stage in encoder.stages)
    assert {id(p) for p in fused.parameters()} == {id(p) for p in encoder.parameters()}

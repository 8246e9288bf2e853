import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segformer.models.layers import AgainstZero, StochasticDepth, as_map, as_tokens, linear_of_gelu, sharing_copy


def gradients(function: object, hidden: torch.Tensor, linear: nn.Linear) -> list[torch.Tensor]:
    hidden = hidden.detach().requires_grad_()
    linear.zero_grad()
    output = function(hidden, linear)  # type: ignore[operator]
    output.square().sum().backward()
    return [output.detach(), hidden.grad, linear.weight.grad, linear.bias.grad]  # type: ignore[list-item]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_recomputed_gelu_is_the_gelu(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    linear, hidden = nn.Linear(12, 5).to(dtype), torch.randn(2, 7, 12, dtype=dtype)
    ours = gradients(linear_of_gelu, hidden, linear)
    theirs = gradients(lambda h, layer: layer(F.gelu(h)), hidden, linear)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert torch.equal(linear_of_gelu(hidden, linear), linear(F.gelu(hidden)))


def test_it_is_exact_in_reduced_precision_too() -> None:
    torch.manual_seed(0)
    linear, hidden = nn.Linear(12, 5), torch.randn(2, 7, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = gradients(linear_of_gelu, hidden.bfloat16(), linear)
        theirs = gradients(lambda h, layer: layer(F.gelu(h)), hidden.bfloat16(), linear)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_the_activation_is_not_kept() -> None:
    linear, hidden = nn.Linear(12, 5), torch.randn(2, 7, 12, requires_grad=True)
    kept: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        active = F.gelu(hidden)
        linear(active)
    assert active.data_ptr() in kept  # as plain autograd has it
    output = linear_of_gelu(hidden, linear)
    saved = output.grad_fn.next_functions[0][0] if output.grad_fn is not None else None  # addmm, below a view
    assert saved is not None
    again = saved._saved_mat1
    assert torch.equal(again, F.gelu(hidden).view(14, 12))
    assert again.data_ptr() != saved._saved_mat1.data_ptr()  # computed anew each time it is asked for


def test_tokens_are_a_map_without_a_copy() -> None:
    tokens = torch.randn(2, 12, 5)
    features = as_map(tokens, (3, 4))
    assert features.shape == (2, 5, 3, 4)
    assert features.data_ptr() == tokens.data_ptr()
    assert torch.equal(as_tokens(features), tokens)
    assert features.is_contiguous(memory_format=torch.channels_last)


def test_one_logit_against_zero_is_a_sigmoid() -> None:
    logit = torch.randn(2, 1, 3, 4)
    torch.testing.assert_close(AgainstZero()(logit).softmax(dim=1)[:, 1:], logit.sigmoid())


def test_a_sharing_copy_has_the_parameters_and_its_own_mode() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    copied = sharing_copy(module).eval()
    assert module.training
    assert all(a is b for a, b in zip(copied.parameters(), module.parameters(), strict=True))
    assert copied[1].running_mean is not module[1].running_mean


def test_stochastic_depth_drops_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop = StochasticDepth(0.25).train()
    kept = drop(torch.ones(20_000, 2, 3))
    assert kept.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (kept == kept[:, :1, :1]).all()
    assert kept.mean().item() == pytest.approx(1.0, abs=0.02)
    assert torch.equal(drop.eval()(kept), kept)

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segformer.models.fused import onednn
from segformer.models.fused.onednn import is_eager_on_cpu, quick_gelu_of_depthwise, quick_linear


@pytest.fixture(params=["with oneDNN", "without"])
def _onednn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "without":
        monkeypatch.setattr(onednn, "ONEDNN", frozenset())


@pytest.mark.usefixtures("_onednn")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@torch.inference_mode()
def test_a_linear_layer(dtype: torch.dtype) -> None:
    layer = nn.Linear(12, 5).to(dtype)
    tokens = torch.randn(2, 7, 12, dtype=dtype)
    torch.testing.assert_close(quick_linear(tokens, layer.weight, layer.bias), layer(tokens))


@pytest.mark.usefixtures("_onednn")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@torch.inference_mode()
def test_the_gelu_of_a_depthwise_convolution(dtype: torch.dtype) -> None:
    layer = nn.Conv2d(8, 8, 3, padding=1, groups=8).to(dtype)
    features = torch.randn(2, 8, 5, 6, dtype=dtype).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(quick_gelu_of_depthwise(features, layer), F.gelu(layer(features)))


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace")
def test_a_gradient_or_a_trace_is_recorded() -> None:
    tensor = torch.zeros(1)
    assert not is_eager_on_cpu(tensor)
    with torch.no_grad():
        assert is_eager_on_cpu(tensor)
        assert not is_eager_on_cpu(torch.zeros(1, device="meta"))
        found: list[bool] = []
        torch.jit.trace(lambda x: (found.append(is_eager_on_cpu(x)), x + 1)[1], tensor, check_trace=False)
    assert found == [False]

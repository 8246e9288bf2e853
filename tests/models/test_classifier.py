import math

import pytest
import torch

from segformer.models.classifier import Classifier, build_classifier
from segformer.models.encoders.mit import MixTransformer
from segformer.published import MIT_SIZES


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (33, 70)])
def test_logits_are_a_linear_map_of_the_mean_of_the_last_map(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = build_classifier("mit_b0", num_classes=5).eval()
    images = torch.randn(2, 3, *size)
    with torch.inference_mode():
        logits = model(images)
        last = model.encoder(images)[-1]
        features = torch.stack([last[:, :, y, x] for y in range(last.shape[2]) for x in range(last.shape[3])]).mean(0)
        expected = features @ model.head.weight.T + model.head.bias
    assert logits.shape == (2, 5)
    torch.testing.assert_close(logits, expected)


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    model = build_classifier("mit_b0", num_classes=5, drop_path=0.0)
    torch.nn.functional.cross_entropy(model(torch.randn(2, 3, 64, 64)), torch.tensor([0, 3])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(("encoder", "parameters"), [("mit_b0", 3_319_392), ("mit_b5", 81_443_008)])
def test_parameters_are_those_of_the_encoder_and_a_head_of_1000_classes(encoder: str, parameters: int) -> None:
    with torch.device("meta"):
        model = build_classifier(encoder)
    channels = MIT_SIZES[encoder].channels[-1]
    assert sum(p.numel() for p in model.parameters()) == parameters + 1000 * (channels + 1)


def test_initialization() -> None:
    torch.manual_seed(0)
    head = Classifier(MixTransformer(MIT_SIZES["mit_b0"])).head
    assert head.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert head.weight.mean().item() == pytest.approx(0, abs=1e-3)
    assert not head.bias.any()
    with torch.inference_mode():  # a fresh head knows nothing: the loss is that of a guess
        logits = build_classifier("mit_b0", num_classes=10).eval()(torch.randn(2, 3, 32, 32))
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([1, 7])).item()
    assert loss == pytest.approx(math.log(10), abs=0.5)


def test_stochastic_depth_reaches_the_encoder() -> None:
    model = build_classifier("mit_b0", drop_path=0.3)
    assert model.encoder.stages[3].blocks[1].drop_path.rate == pytest.approx(0.3)  # type: ignore[union-attr,index]


def test_what_can_not_be_built() -> None:
    with pytest.raises(ValueError, match=r"encoder must be one of mit_b0, .*; got 'mit_b6'; did you mean"):
        build_classifier("mit_b6")
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        build_classifier("mit_b0", num_classes=0)

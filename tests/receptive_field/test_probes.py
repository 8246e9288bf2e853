from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from networks import FakeNetwork
from segformer.checkpoints.model_folder import save
from segformer.errors import UserError
from segformer.models.build import build_model
from segformer.receptive_field.field import image_fields
from segformer.receptive_field.probes import TimmOutputs, probe_all, probe_model, probe_named

timm = pytest.importorskip("timm")
SIZE, CPU = (128, 128), torch.device("cpu")


def test_a_model_is_copied_and_its_decoder_read_before_the_classifier() -> None:
    model = build_model("mit_b0", num_classes=3).train()
    probe = probe_model(model)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    pixels = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        maps = probe.outputs(probe.normalize(pixels))
        model.eval()
        expected = model(model.normalize(pixels[None]))
        torch.testing.assert_close(model.decoder.classifier(maps["decoder"]), expected)
    assert [tuple(m.shape[1:]) for m in maps.values()] == [
        *((32, 16, 16), (64, 8, 8), (160, 4, 4), (256, 2, 2)),
        (256, 16, 16),
    ]
    assert not model.decoder.classifier._forward_pre_hooks


def test_random_encoders_are_the_same_every_time_and_leave_the_generator() -> None:
    state = torch.get_rng_state()
    first, again = (probe_named("resnet18", SIZE, CPU) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.label == "resnet18 (random weights)"
    assert first.digest == again.digest
    pixels = torch.randint(0, 256, (3, 4, 5), dtype=torch.uint8)
    mean, std = (255 * torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(first.normalize(pixels), ((pixels - mean) / std)[None])


def test_residual_branches_of_random_encoders_are_seen() -> None:
    """The first stage of ResNet-18 sees 11 pixels through its stem, and 2 x 4 more with each of four convolutions."""
    image = torch.randn(1, 3, *SIZE)
    fields = image_fields(probe_named("resnet18", SIZE, CPU).outputs, image)
    assert [field.stride for field in fields.values()] == [4, 8, 16, 32]
    rows, columns = np.nonzero(fields["stage 1"].map)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (64 - 21, 64 + 21, 64 - 21, 64 + 21)


def test_layer_scales_of_random_encoders_are_open() -> None:
    """ConvNeXt's first stage sees 4 x 4 pixels through its stem, and 3 positions further with each of two blocks."""
    field = image_fields(probe_named("convnext_atto", SIZE, CPU).outputs, torch.randn(1, 3, *SIZE))["stage 1"]
    assert field.area(1.0) == np.count_nonzero(field.map) == (13 * 4) ** 2
    assert field.area(0.95) > 4 * 4 * 9


def test_weights_of_a_file(tmp_path: Path) -> None:
    torch.manual_seed(5)
    reference = timm.create_model("resnet18").eval()
    torch.save({"state_dict": reference.state_dict()}, tmp_path / "resnet18.pth")
    probe = probe_named(f"resnet18={tmp_path / 'resnet18.pth'}", SIZE, CPU)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(probe.outputs(image)["stage 4"], reference.forward_features(image))
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "wrong.pth")
    with pytest.raises(UserError, match=r"wrong.pth: tensor 'bn1.weight' is missing; expected .* timm's resnet18"):
        probe_named(f"resnet18={tmp_path / 'wrong.pth'}", SIZE, CPU)


def test_channels_last_encoders_are_turned() -> None:
    class Encoder(nn.Module):
        feature_info = SimpleNamespace(channels=lambda: [6, 8, 4], reduction=lambda: [8, 16, 16])

        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            return [torch.zeros(1, 8, 6, 6), torch.zeros(1, 4, 3, 8), torch.zeros(1, 4, 3, 4)]

    shapes = [tuple(m.shape) for m in TimmOutputs(Encoder())(torch.zeros(1, 3, 64, 48)).values()]
    assert shapes == [(1, 6, 8, 6), (1, 8, 4, 3), (1, 4, 4, 3)]


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    model = build_model("mit_b0", num_classes=3)
    with pytest.raises(UserError, match=r"timm has no encoder 'resnet5O'; did you mean 'resnet5"):
        probe_all(model, "model", ["resnet5O"], SIZE)
    with pytest.raises(UserError, match=r"has resnet18 \(random weights\) twice"):
        probe_all(model, "model", ["resnet18", "resnet18"], SIZE)
    with pytest.raises(UserError, match=r"nothing\.pth: no such file"):
        probe_all(model, "model", ["resnet18=nothing.pth"], SIZE)
    with pytest.raises(UserError, match="needs a model with 3 input channels, this one has 5"):
        probe_all(build_model("mit_b0", num_classes=3, in_channels=5), "model", ["resnet18"], SIZE)
    save(build_model("mit_b0", num_classes=3, in_channels=5), tmp_path / "five")
    with pytest.raises(UserError, match="five takes 5 channels, expected 3"):
        probe_all(model, "model", [str(tmp_path / "five")], SIZE)
    save(model, tmp_path / "own")
    assert [p.label for p in probe_all(model, "model", [str(tmp_path / "own")], SIZE)] == ["model", f"{tmp_path}/own"]


def test_a_fused_model_in_half_precision_has_its_maps_and_stays_as_it_is() -> None:
    model = build_model("mit_b0", num_classes=3).eval()
    fused = model.fuse(torch.bfloat16)
    probe = probe_model(fused)
    pixels = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    fields = image_fields(probe.outputs, probe.normalize(pixels))
    assert list(fields) == ["stage 1", "stage 2", "stage 3", "stage 4", "decoder"]
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_of_a_strangers_network_the_logits_are_known() -> None:
    network = FakeNetwork()
    probe = probe_model(network, "fake")
    pixels = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    (logits,) = probe.outputs(probe.normalize(pixels)).values()
    torch.testing.assert_close(logits, network(network.normalize(pixels[None])))
    assert probe.digest == network.fingerprint()

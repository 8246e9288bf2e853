import pytest
import torch
import torch.nn.functional as F

from segformer.models.build import build_model


def test_predict_mask_is_the_argmax_of_upsampled_logits() -> None:
    torch.manual_seed(0)
    model = build_model("mit_b0", num_classes=5).eval()
    images = torch.randint(0, 256, (2, 3, 50, 70), dtype=torch.uint8)
    mask = model.predict_mask(images)
    logits = model((images.float() - model.mean) / model.std)
    full = F.interpolate(logits.double(), size=(50, 70), mode="bilinear", align_corners=False)
    assert mask.shape == (2, 50, 70)
    assert (mask == full.argmax(1)).float().mean() > 0.9999
    assert torch.equal(mask, model.predict_mask(images.float()))
    assert model.predict_mask(images, size=(20, 30)).shape == (2, 20, 30)


@pytest.mark.parametrize("shape", [(1, 4, 64, 64), (3, 64, 64), (1, 3, 31, 64), (1, 3, 64, 16)])
def test_bad_images(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="images must be"):
        build_model("mit_b0", num_classes=4)(torch.zeros(shape))


def test_pixels_are_normalized_alike_in_both_layouts() -> None:
    model = build_model("mit_b0", num_classes=2)
    planar = torch.randint(256, (2, 3, 33, 47), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    together = planar.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        assert torch.equal(model.normalize(together), model.normalize(planar))


def test_a_fingerprint_tells_weights_apart() -> None:
    torch.manual_seed(0)
    model = build_model("mit_b0", num_classes=2)
    before = model.fingerprint()
    assert before == model.fingerprint()
    assert len(before) == 64
    assert model.fuse().fingerprint() != before
    model.decoder.classifier.bias.data[0] += 1e-3
    assert model.fingerprint() != before


def test_statistics_are_those_of_the_card_and_are_not_saved() -> None:
    model = build_model("mit_b0", num_classes=2, in_channels=5)
    assert model.mean.flatten().tolist() == pytest.approx(model.card.preprocessing.mean)
    assert model.std.flatten().tolist() == pytest.approx(model.card.preprocessing.std)
    assert not {"mean", "std"} & model.state_dict().keys()
    assert model.device == model.mean.device

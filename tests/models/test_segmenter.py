import math

import pytest
import torch
import torch.nn.functional as F

from segformer.errors import UserError
from segformer.models.build import build_model
from segformer.models.fused.segmenter import FusedSegmenter
from segformer.models.segmenter import for_inference
from segformer.published import MIT_SIZES
from transformers_parity import relative_difference, twins


@pytest.mark.parametrize("encoder", MIT_SIZES)
def test_logits_equal_those_of_transformers(encoder: str) -> None:
    theirs, ours = twins(encoder)
    sizes = [(64, 96), (77, 101), (33, 130)] if encoder in ("mit_b0", "mit_b1", "mit_b2") else [(65, 90)]
    for height, width in sizes:
        images = torch.randn(2, 3, height, width)
        with torch.inference_mode():
            expected = theirs(images).logits
            literal = ours.decoder.forward_literal(ours.encoder(images))
            assert relative_difference(literal, expected) < 1e-5
            assert relative_difference(ours(images), expected) < 1e-5
            assert relative_difference(ours.fuse()(images), expected) < 1e-5


def test_every_stage_equals_that_of_transformers() -> None:
    theirs, ours = twins("mit_b1")
    images = torch.randn(1, 3, 95, 130)
    with torch.inference_mode():
        hidden = theirs(images, output_hidden_states=True).hidden_states
        for ours_map, their_map in zip(ours.encoder(images), hidden, strict=True):
            assert relative_difference(ours_map, their_map) < 1e-5


def test_a_training_step_gives_the_loss_and_gradients_of_transformers() -> None:
    theirs, ours = twins("mit_b0")
    theirs.train(), ours.train()
    images, labels = torch.randn(2, 3, 64, 65), torch.randint(0, 19, (2, 64, 65))
    expected = theirs(images, labels=labels).loss
    expected.backward()
    loss = F.cross_entropy(F.interpolate(ours(images), size=(64, 65), mode="bilinear"), labels)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(
        ours.decoder.classifier.weight.grad, theirs.decode_head.classifier.weight.grad, rtol=1e-3, atol=1e-6
    )
    embed = theirs.segformer.stages[0].patch_embeddings.proj.weight.grad
    torch.testing.assert_close(ours.encoder.stages[0].embed.project.weight.grad, embed, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("encoder", "num_classes", "parameters"),
    [
        ("mit_b0", 150, 3_752_694),
        ("mit_b1", 150, 13_715_798),
        ("mit_b2", 150, 27_461_974),
        ("mit_b3", 150, 47_337_814),
        ("mit_b4", 150, 64_108_374),
        ("mit_b5", 150, 84_708_694),
        ("mit_b0", 19, 3_719_027),
        ("mit_b1", 19, 13_682_131),
        ("mit_b5", 19, 84_607_955),
    ],
)
def test_parameters_as_published(encoder: str, num_classes: int, parameters: int) -> None:
    with torch.device("meta"):
        model = build_model(encoder, num_classes=num_classes)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (100, 63), (224, 32)])
@pytest.mark.parametrize("in_channels", [1, 3, 5])
def test_any_size_and_channel_count(size: tuple[int, int], in_channels: int) -> None:
    model = build_model("mit_b0", num_classes=4, in_channels=in_channels)
    logits = model(torch.randn(2, in_channels, *size))
    assert logits.shape == (2, 4, -(-size[0] // 4), -(-size[1] // 4))
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_maps_stay_channels_last_without_copies() -> None:
    model = build_model("mit_b0", num_classes=4)
    for features in model.encoder(torch.randn(1, 3, 64, 64)):
        assert features.is_contiguous(memory_format=torch.channels_last)


def test_fusing_leaves_the_model_as_it_was() -> None:
    model = build_model("mit_b0", num_classes=4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fused = model.fuse()
    fused.predict_mask(torch.zeros(1, 3, 32, 32))
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_an_untrained_model_is_undecided() -> None:
    """Its loss is about log(K): a wild initialization of the classifier costs hundreds of steps."""
    torch.manual_seed(0)
    model = build_model("mit_b0", num_classes=150)
    logits = model(torch.randn(2, 3, 64, 64))
    loss = F.cross_entropy(logits, torch.randint(0, 150, logits[:, 0].shape))
    assert loss.item() == pytest.approx(math.log(150), rel=0.1)


def test_outputs_are_the_logits_where_there_is_no_auxiliary_head() -> None:
    model = build_model("mit_b0", num_classes=4).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        (logits,) = model.outputs(images)
        assert torch.equal(logits, model(images))


def test_the_inference_form_of_a_network() -> None:
    model = build_model("mit_b0", num_classes=4)
    fused = for_inference(model, torch.bfloat16)
    assert isinstance(fused, FusedSegmenter)
    assert fused.dtype == torch.bfloat16
    assert for_inference(fused) is fused
    assert for_inference(fused, torch.bfloat16) is fused
    with pytest.raises(UserError, match="only for a Segmenter, got a FusedSegmenter"):
        for_inference(fused, torch.float16)
    with pytest.raises(UserError, match="only for a Segmenter, got a FusedSegmenter"):
        for_inference(fused, compile=True)

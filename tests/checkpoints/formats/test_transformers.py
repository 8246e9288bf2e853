import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    SegformerConfig,
    SegformerForImageClassification,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    SegformerModel,
)

import segformer
from segformer.checkpoints.conversion import convert
from segformer.checkpoints.model_folder import read_weights
from segformer.data.sources import ade20k, cityscapes
from segformer.data.transforms import preprocess
from segformer.errors import UserError
from segformer.models.segmenter import Segmenter
from transformers_parity import randomize, relative_difference, transformers_model

SLOW = [pytest.param(f"mit_b{n}", marks=pytest.mark.slow) for n in (1, 3, 4, 5)]
SMALL = SegformerConfig(drop_path_rate=0.0, classifier_dropout_prob=0.0)  # its defaults are those of MiT-B0


def images_of(*size: int) -> Tensor:
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def assert_same_logits(ours: Segmenter, theirs: nn.Module, size: tuple[int, int] = (64, 96)) -> None:
    images = images_of(*size)
    assert relative_difference(ours(images), theirs(images).logits) < 1e-5


def loaded_strictly(folder: Path) -> SegformerForSemanticSegmentation:
    """What transformers makes of a folder, of which it must miss nothing and leave out nothing."""
    model, said = SegformerForSemanticSegmentation.from_pretrained(folder, output_loading_info=True)
    assert not any(said.values()), said
    return model.eval()


@pytest.fixture(scope="module")
def theirs() -> SegformerForSemanticSegmentation:
    torch.manual_seed(0)
    return transformers_model("mit_b0", 7)


@pytest.fixture(scope="module")
def source(theirs: SegformerForSemanticSegmentation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transformers") / "theirs"
    theirs.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("encoder", ["mit_b0", "mit_b2", *SLOW])
def test_there_and_back(encoder: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = transformers_model(encoder, 19)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = segformer.load(tmp_path / "theirs")
    config = ours.card.model
    assert (config.encoder, config.norm_eps, config.embed_norm_eps) == (encoder, 1e-5, 1e-5)
    assert_same_logits(ours, theirs)
    convert(tmp_path / "theirs", tmp_path / "back", "hf")
    back = loaded_strictly(tmp_path / "back")
    assert_same_logits(ours, back)
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name
    written, expected = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("back", "theirs"))
    for field in ("hidden_sizes", "depths", "num_attention_heads", "sr_ratios", "mlp_ratios", "decoder_hidden_size"):
        assert written[field] == expected[field]


def test_by_way_of_a_model_folder(source: Path, theirs: SegformerForSemanticSegmentation, tmp_path: Path) -> None:
    assert convert(source, tmp_path / "ours", "segformer") == []
    assert_same_logits(segformer.load(tmp_path / "ours"), theirs)
    convert(tmp_path / "ours", tmp_path / "back", "hf")
    assert_same_logits(segformer.load(tmp_path / "ours"), loaded_strictly(tmp_path / "back"))


@pytest.mark.parametrize("size", [(33, 47), (64, 95), (70, 101)])
def test_odd_image_sizes(source: Path, theirs: SegformerForSemanticSegmentation, size: tuple[int, int]) -> None:
    assert_same_logits(segformer.load(source), theirs, size)


def test_a_pickle_in_the_folder(source: Path, theirs: SegformerForSemanticSegmentation, tmp_path: Path) -> None:
    state = load_file(source / "model.safetensors")
    assert "segformer.encoder.block.0.0.attention.self.query.weight" in state  # the hub's names
    torch.save(state, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text((source / "config.json").read_text())
    for path in (tmp_path, tmp_path / "pytorch_model.bin"):
        assert_same_logits(segformer.load(path), theirs)


def test_shards(theirs: SegformerForSemanticSegmentation, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path, max_shard_size="2MB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert not (tmp_path / "model.safetensors").exists()
    assert_same_logits(segformer.load(tmp_path), theirs)
    next(iter(sorted(tmp_path.glob("*.safetensors")))).unlink()
    with pytest.raises(UserError, match=r"model-00001-of-.*\.safetensors"):
        segformer.load(tmp_path)


def test_the_names_in_memory(theirs: SegformerForSemanticSegmentation, tmp_path: Path) -> None:
    state = theirs.state_dict()
    assert "segformer.stages.0.blocks.0.attention.q_proj.weight" in state
    torch.save(state, tmp_path / "memory.pth")
    ours = segformer.load(tmp_path / "memory.pth")
    assert_same_logits(ours, theirs)
    assert ours.card.classes == tuple(f"class_{k}" for k in range(7))


def test_half_precision_is_computed_in_single(source: Path, tmp_path: Path) -> None:
    half = SegformerForSemanticSegmentation.from_pretrained(source, dtype=torch.bfloat16)
    half.save_pretrained(tmp_path / "half")
    ours = segformer.load(tmp_path / "half")
    assert {tensor.dtype for tensor in ours.parameters()} == {torch.float32}
    assert_same_logits(ours, half.float().eval())


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("kind", [SegformerForImageClassification, SegformerModel])
def test_an_encoder_alone(kind: type[nn.Module], memory: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs: Any = kind(SMALL).eval()
    randomize(theirs)
    path = tmp_path / ("model.pth" if memory else "model")
    torch.save(theirs.state_dict(), path) if memory else theirs.save_pretrained(path)
    with pytest.raises(ValueError, match=r"model.* contains only an encoder, .*num_classes="):
        segformer.load(path)
    ours = segformer.load(path, num_classes=5)
    assert len(ours.card.classes) == 5
    images = images_of(64, 96)
    encoder = getattr(theirs, "segformer", theirs)
    with torch.inference_mode():
        expected = encoder(images, output_hidden_states=True).hidden_states
        maps = ours.encoder(images)
        assert ours(images).shape == (1, 5, 16, 24)
    assert len(maps) == len(expected) == 4
    for got, want in zip(maps, expected, strict=True):
        assert relative_difference(got, want) < 1e-5
    notes = " ".join(read_weights(path).notes)
    assert ("left out classifier" in notes) == (kind is SegformerForImageClassification)


@torch.inference_mode()
def test_one_label_is_a_threshold(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = transformers_model("mit_b0", 1)
    theirs.config.id2label = {0: "tumour"}
    theirs.save_pretrained(tmp_path / "theirs")
    ours = segformer.load(tmp_path / "theirs")
    assert ours.card.classes == ("background", "tumour")
    pixels = torch.randint(0, 256, (1, 3, 75, 90), dtype=torch.uint8)
    logits = F.interpolate(theirs(ours.normalize(pixels)).logits, (75, 90), mode="bilinear", align_corners=False)[:, 0]
    clear = logits.abs() > 1e-4 * logits.abs().max()
    expected = logits.sigmoid() > 0.5
    assert 0.02 < expected.float().mean() < 0.98
    assert torch.equal(ours.predict_mask(pixels)[clear], expected[clear].long())
    convert(tmp_path / "theirs", tmp_path / "back", "hf")
    back = loaded_strictly(tmp_path / "back")
    assert back.config.id2label == {0: "background", 1: "tumour"}
    assert_same_logits(ours, back)


def with_labels(source: Path, folder: Path, names: tuple[str, ...]) -> Path:
    """A copy of a folder with other classes; their order in the file is that of text: 0, 1, 10, 11, ..."""
    folder.mkdir()
    config = json.loads((source / "config.json").read_text())
    config["id2label"] = {str(k): names[k] for k in sorted(range(len(names)), key=str)}
    (folder / "config.json").write_text(json.dumps(config))
    state = load_file(source / "model.safetensors")
    for key in ("decode_head.classifier.weight", "decode_head.classifier.bias"):
        state[key] = torch.zeros(len(names), *state[key].shape[1:])
    torch.save(state, folder / "pytorch_model.bin")
    return folder


# As in the config.json of the models on the hub.
RELEASED_ADE = {"bed": "bed ", "television": "television receiver", "trade": "trade name"}
RELEASES = {
    "ADE20K": (tuple(RELEASED_ADE.get(name, name) for name in ade20k.CLASSES), ade20k.PALETTE),
    "ADE20K with synonyms": (tuple(f"{name.title()}, other" for name in ade20k.CLASSES), ade20k.PALETTE),
    "Cityscapes": (cityscapes.CLASSES, cityscapes.PALETTE),
}


@pytest.mark.parametrize("name", RELEASES)
def test_names_and_the_palette_of_a_known_data_set(source: Path, tmp_path: Path, name: str) -> None:
    classes, palette = RELEASES[name]
    card = segformer.load(with_labels(source, tmp_path / "named", classes)).card
    assert card.classes == tuple(label.strip() for label in classes)
    assert card.palette == palette


def test_classes_of_ones_own_get_colors_of_their_own(source: Path, tmp_path: Path) -> None:
    names = tuple(f"thing {k}" for k in range(19))  # as many as Cityscapes has
    card = segformer.load(with_labels(source, tmp_path / "named", names)).card
    assert card.classes == names
    assert len(set(card.palette)) == 19
    assert card.palette != cityscapes.PALETTE


STATISTICS = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
PREPROCESSORS: dict[str, dict[str, Any]] = {
    "size int": {"size": 64},
    "height and width": {"size": {"height": 64, "width": 96}},
    "shortest edge": {"size": {"shortest_edge": 64}},
    "not resized": {"do_resize": False},
    "not normalized": {"size": 64, "do_normalize": False},
    "own statistics": {"size": 64, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]},
    "not rescaled": {"size": 64, "do_rescale": False, "image_mean": [100.0, 110.0, 120.0], "image_std": [50.0] * 3},
    "neither rescaled nor normalized": {"size": 64, "do_rescale": False, "do_normalize": False},
    "another factor": {"size": 64, "do_normalize": False, "rescale_factor": 0.01},
    "the first hub files": {"feature_extractor_type": "SegformerFeatureExtractor", "reduce_labels": True, "size": 64},
}


def with_preprocessor(source: Path, folder: Path, values: dict[str, Any]) -> Segmenter:
    folder.mkdir(exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((source / name).read_bytes())
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return segformer.load(folder)


@pytest.mark.parametrize("case", PREPROCESSORS)
def test_preprocessing_makes_the_same_pixels(source: Path, tmp_path: Path, case: str) -> None:
    values = {"do_resize": True, "do_normalize": True, "resample": 2} | STATISTICS | PREPROCESSORS[case]
    ours = with_preprocessor(source, tmp_path / "model", values)
    image = torch.randint(0, 256, (3, 96, 144), dtype=torch.uint8)
    expected = SegformerImageProcessor(**values)(images=image, return_tensors="pt").pixel_values
    got = ours.normalize(preprocess(image, ours.card.preprocessing)[None])
    assert got.shape == expected.shape
    assert relative_difference(got, expected) < 0.01  # ours is rounded to 8 bits in between
    assert (got - expected).abs().mean() < 0.003 * expected.abs().max()


def test_preprocessing_is_written_back(source: Path, tmp_path: Path) -> None:
    values = {"size": {"height": 48, "width": 80}, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]}
    card = with_preprocessor(source, tmp_path / "model", values).card
    assert convert(tmp_path / "model", tmp_path / "back", "hf") == []
    again = segformer.load(tmp_path / "back").card.preprocessing
    assert (again.resize, again.short_side, again.long_side) == ("squash", 48, 80)
    assert again.mean == pytest.approx(card.preprocessing.mean)
    assert again.std == pytest.approx(card.preprocessing.std)
    processor = SegformerImageProcessor.from_pretrained(tmp_path / "back")
    assert processor.image_mean == pytest.approx([0.1, 0.2, 0.3])
    assert dict(processor.size) == {"height": 48, "width": 80}


def test_preprocessing_not_normalized_is_written_back(source: Path, tmp_path: Path) -> None:
    with_preprocessor(source, tmp_path / "model", {"size": 64, "do_normalize": False})
    convert(tmp_path / "model", tmp_path / "back", "hf")
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    pixels = SegformerImageProcessor.from_pretrained(tmp_path / "back")(images=image, return_tensors="pt").pixel_values
    torch.testing.assert_close(pixels[0], image / 255)


@pytest.mark.parametrize(
    "values",
    [{"size": {"longest_edge": 512}}, {"size": "large"}, {"image_mean": [0.5], "image_std": [0.5]}, [1, 2]],
    ids=["longest edge", "text", "one channel", "a list"],
)
def test_a_preprocessor_of_something_else_is_one_clear_error(source: Path, tmp_path: Path, values: Any) -> None:
    with pytest.raises(ValueError, match="damaged"):
        with_preprocessor(source, tmp_path / "damaged", values)

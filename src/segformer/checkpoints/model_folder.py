"""Model folders: config.json (a ModelCard) beside model.safetensors."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialize
from torch import Tensor

from segformer.checkpoints.foreign import translate
from segformer.checkpoints.hub import download, is_id
from segformer.checkpoints.key_table import State, expected_state
from segformer.checkpoints.weight_files import FOLDER_FILES, PICKLES, SAFETENSORS, read_checkpoint, read_file
from segformer.checkpoints.writing import WRITERS, left_behind, losses
from segformer.config import ModelCard, ModelConfig, check_choice, from_json, to_json
from segformer.errors import UserError
from segformer.files import read_json, write_bytes, write_folder, write_json
from segformer.models.build import build_from_card, build_model, check_card
from segformer.models.segmenter import Segmenter

log = logging.getLogger(__name__)

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT_VERSION = 1
STEM = "encoder.stages.0.embed.project.weight"


def save(model: Segmenter, folder: str | Path) -> None:
    """Write a model folder; an existing one is replaced as a whole, or not at all.

    Raises UserError where the folder holds anything else, which would be lost.
    """
    others = {path.name for path in Path(folder).iterdir()} - {CONFIG, WEIGHTS} if Path(folder).is_dir() else set()
    if others:
        raise UserError(f"{folder} holds other files ({min(others)}); give the model a folder of its own")
    write_folder(Path(folder), lambda partial: write_model(model, partial))


def convert(source: str | Path, target: str | Path, to: str) -> list[str]:
    """Write any model that ``load`` reads as "segformer", "hf", "smp" or "nvlabs"; returns what was lost on the way.

    Raises UserError where there is something at ``target`` already.
    """
    check_choice("--to", to, ("segformer", *WRITERS))
    if Path(target).exists():
        raise UserError(f"{target} exists already; give another name")
    weights = read_weights(source)
    model, notes = load(weights), list(weights.notes)
    if to == "segformer":
        save(model, target)
        return notes
    layout, write = WRITERS[to]
    state = two_logits(model.state_dict()) if model.card.model.binary else model.state_dict()
    write_folder(Path(target), lambda partial: write(state, model.card, partial))
    return notes + losses(layout, model.card) + left_behind(layout, model.card)


def two_logits(state: State) -> State:
    """Return the weights of a binary head as those of two classes, the first of which always has logit 0."""
    names = [f"decoder.classifier.{name}" for name in ("weight", "bias")]
    return {**state, **{name: torch.cat([torch.zeros_like(state[name]), state[name]]) for name in names}}


def from_pretrained(repo_id: str, **options: Any) -> Segmenter:
    """Load a model from the hub; ``options`` are those of ``huggingface_hub.ModelHubMixin.from_pretrained``.

    ``load(repo_id)`` does the same without options.
    """
    from huggingface_hub import ModelHubMixin

    class Download(ModelHubMixin):
        @classmethod
        def _from_pretrained(cls, *, model_id: str, **hub: Any) -> Any:
            known = ("revision", "cache_dir", "force_download", "local_files_only", "token")
            return load(download(model_id, **{name: hub[name] for name in known if hub.get(name) is not None}))

    model: Any = Download.from_pretrained(repo_id, **options)
    assert isinstance(model, Segmenter)
    return model


def push_to_hub(model: Segmenter, repo_id: str, **options: Any) -> str:
    """Upload a model folder to the hub; ``options`` are those of ``huggingface_hub.ModelHubMixin.push_to_hub``."""
    from huggingface_hub import ModelHubMixin

    class Upload(ModelHubMixin, library_name="segformer", tags=["image-segmentation", "segformer"]):
        def _save_pretrained(self, save_directory: Path) -> None:
            write_model(model, save_directory)

    return str(Upload().push_to_hub(repo_id, **options))


def write_model(model: Segmenter, folder: Path) -> None:
    """Write the two files of a model folder into an existing folder."""
    write_json(folder / CONFIG, {"format_version": FORMAT_VERSION} | to_json(model.card))
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_bytes(folder / WEIGHTS, serialize(state, metadata={"format": "pt"}))


@dataclass(frozen=True)
class Weights:
    """Weights in our names, and what is known about them; ``card`` is None for an encoder alone."""

    source: str
    config: ModelConfig
    card: ModelCard | None
    state: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def load(
    source: "str | Path | Weights", device: str | torch.device = "cpu", *, num_classes: int | None = None
) -> Segmenter:
    """Load a model from a model folder, another project's file or folder, or the hub (owner/name[@revision]).

    The model comes back in evaluation mode.  ``num_classes`` is for fine-tuning: a head for another number of
    classes is replaced by a random one, and so is a missing decoder.  Raises UserError where there is
    nothing, UserError where the files do not hold what they should.
    """
    weights = source if isinstance(source, Weights) else read_weights(source)
    source = weights.source
    for note in weights.notes:
        log.info("%s: %s", source, note)
    if num_classes is None and weights.card is None:
        reasons = sorted({note.rsplit(": ", 1)[-1] for note in weights.notes})
        raise UserError(
            f"{source} holds an encoder alone, which can not segment{''.join(f' ({reason})' for reason in reasons)}; "
            f"train from it (train.init_from), or load it with num_classes="
        )
    if num_classes is None or (weights.card and len(weights.card.classes) == num_classes):
        assert weights.card is not None
        with torch.device("meta"):
            model = build_from_card(weights.card)
        model.load_state_dict(weights.state, assign=True)
    else:
        preprocessing = weights.card.preprocessing if weights.card else None
        model = build_model(weights.config, num_classes=num_classes, preprocessing=preprocessing)
        for note in initialize(model, weights):
            log.warning("%s: %s", source, note)
    return model.to(device).eval()


def read_weights(source: str | Path) -> Weights:
    """Read weights of any layout into our names and float32; raises as ``load`` does."""
    path = Path(source)
    if not path.exists():
        if not is_id(str(source)):
            raise UserError(
                f"no model at '{source}'; give a model folder such as runs/<recipe>/best, a checkpoint of another "
                f"project, or a hub id such as owner/name"
            )
        path = download(str(source))
    if path.name in FOLDER_FILES and (path.parent / CONFIG).is_file():
        path = path.parent  # the file means its folder, whose config.json says more
    if is_model_folder(path):
        return read_own(path)
    foreign = translate(read_checkpoint(path))
    state = {name: tensor if tensor.ndim == 0 else tensor.float() for name, tensor in foreign.state.items()}
    card = foreign.card and replace(foreign.card, provenance={**foreign.card.provenance, "source": str(source)})
    return Weights(str(source), foreign.config, card, state, foreign.notes)


def is_model_folder(path: Path) -> bool:
    """Whether a path is a folder that this package wrote, or what is left of one."""
    if not path.is_dir():
        return False
    if not (path / CONFIG).is_file():
        return not any(file.suffix in SAFETENSORS + PICKLES and file.name != WEIGHTS for file in path.iterdir())
    values = read_json(path / CONFIG)
    return not (isinstance(values, dict) and {"model_type", "encoder_name"} & values.keys())


def read_own(folder: Path) -> Weights:
    """Read a model folder."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(
                f"'{folder}' is no model folder: it has no {name}; give a folder such as runs/<recipe>/best"
            )
    card = read_card(folder / CONFIG)
    state, expected = read_file(folder / WEIGHTS), expected_state(card.model, len(card.classes))
    check_state(state, expected, folder / WEIGHTS)
    return Weights(str(folder), card.model, card, {name: state[name].to(expected[name].dtype) for name in expected})


def initialize(model: Segmenter, weights: Weights) -> list[str]:
    """Fine-tuning: take over what fits, and say what does not: another head, other input channels.

    Raises a UserError where the encoders differ.
    """
    if weights.config.encoder != model.card.model.encoder:
        raise UserError(f"{weights.source} holds {weights.config.encoder}, the model is {model.card.model.encoder}")
    state, notes = dict(weights.state), list(weights.notes)
    channels = model.card.model.in_channels
    if weights.config.in_channels != channels:
        state[STEM] = adapt_channels(state[STEM], channels)
        notes.append(f"adapted the first convolution from {weights.config.in_channels} to {channels} channels")
    expected = model.state_dict()
    kept = {name: tensor for name, tensor in state.items() if expected[name].shape == tensor.shape}
    fresh = sorted({name.rsplit(".", 1)[0] for name in expected.keys() - kept.keys()})
    if fresh:
        notes.append(f"random from here on: {', '.join(fresh)}")
    model.load_state_dict(kept, strict=False)
    return notes


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """Average a convolution over its input channels, and share that among any number of them: same scale of output."""
    mean = weight.mean(dim=1, keepdim=True) * (weight.shape[1] / channels)
    return mean.repeat(1, channels, 1, 1)


def read_card(path: Path) -> ModelCard:
    """Read a config.json; raises a UserError that names the file and the field at fault."""
    values = read_json(path)
    if not isinstance(values, dict) or values.pop("format_version", None) != FORMAT_VERSION:
        raise UserError(
            f"{path}: expected a segformer model's config (format_version {FORMAT_VERSION}), got other JSON"
        )
    try:
        card = from_json(ModelCard, values)
        check_card(card)
        return card
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def check_state(state: dict[str, Tensor], expected: State, path: Path) -> None:
    """Raise a UserError that names the first tensor that is missing, unknown or of another shape."""
    for name, tensor in expected.items():
        if name not in state:
            raise UserError(f"{path}: tensor '{name}' is missing; config.json and weights do not belong together")
        if state[name].shape != tensor.shape:
            raise UserError(
                f"{path}: tensor '{name}' must be {tuple(tensor.shape)} according to config.json, "
                f"got {tuple(state[name].shape)}"
            )
    for name in state:
        if name not in expected:
            raise UserError(f"{path}: unknown tensor '{name}'; config.json and weights do not belong together")

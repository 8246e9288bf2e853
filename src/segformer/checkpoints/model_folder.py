"""Save and load model folders: each contains a config.json with the ModelCard, and model.safetensors."""

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialize
from torch import Tensor

from segformer.checkpoints.architecture import expected_state
from segformer.checkpoints.fine_tuning import initialize
from segformer.checkpoints.foreign import is_foreign, translate
from segformer.checkpoints.formats import FORMATS
from segformer.checkpoints.hub import HubOptions, download, is_id
from segformer.checkpoints.key_table import State
from segformer.checkpoints.weight_files import FOLDER_FILES, PICKLES, SAFETENSORS, read_checkpoint, read_file
from segformer.checkpoints.weights import Weights
from segformer.config import ModelCard
from segformer.errors import UserError
from segformer.files import read_json, write_bytes, write_folder, write_json
from segformer.json_config import from_json, to_json
from segformer.models.build import build_from_card, build_model, check_card
from segformer.models.segmenter import Segmenter

log = logging.getLogger(__name__)

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
FORMAT_VERSION = 1


def save(model: Segmenter, folder: str | Path) -> None:
    """Save a model to a folder; an existing model folder is replaced completely or, on failure, not at all.

    Raises a UserError if the folder contains other files, because they would be lost.
    """
    others = {path.name for path in Path(folder).iterdir()} - {CONFIG, WEIGHTS} if Path(folder).is_dir() else set()
    if others:
        raise UserError(f"{folder} holds other files ({min(others)}); use a separate folder for the model")
    write_folder(Path(folder), lambda partial: write_model(model, partial))


def push_to_hub(model: Segmenter, repo_id: str, **options: Any) -> str:
    """Upload a model to the Hugging Face hub as a model folder, and return the URL of the commit.

    ``options`` are passed to ``huggingface_hub.ModelHubMixin.push_to_hub``, for example ``private`` and
    ``commit_message``.
    """
    from huggingface_hub import ModelHubMixin

    class Upload(ModelHubMixin, library_name="segformer", tags=["image-segmentation", "segformer"]):
        def _save_pretrained(self, save_directory: Path) -> None:
            write_model(model, save_directory)

    return str(Upload().push_to_hub(repo_id, **options))


def write_model(model: Segmenter, folder: Path) -> None:
    """Write config.json and model.safetensors to an existing folder."""
    write_json(folder / CONFIG, {"format_version": FORMAT_VERSION} | to_json(model.card))
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_bytes(folder / WEIGHTS, serialize(state, metadata={"format": "pt"}))


def load(
    source: str | Path | Weights,
    device: str | torch.device = "cpu",
    *,
    num_classes: int | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Segmenter:
    """Load a model and set it to evaluation mode.

    ``source`` is a model folder, a file or folder of another project, or a model on the hub (owner/name[@revision]).
    ``num_classes`` is for fine-tuning: a head for another number of classes is replaced by a randomly initialized one,
    and a missing decoder is added.  The last five options are for models on the hub and are passed to
    ``huggingface_hub.snapshot_download``.  Raises a UserError if there is no model at ``source``, or if its files are
    damaged or contradict one another.
    """
    hub = HubOptions(
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        force_download=force_download,
    )
    weights = source if isinstance(source, Weights) else read_weights(source, hub)
    return build_from_weights(weights, num_classes).to(device).eval()


from_pretrained = load  # the name that the ecosystem expects


def build_from_weights(weights: Weights, num_classes: int | None = None) -> Segmenter:
    """Return a model with the given weights; if ``num_classes`` needs a new head, only weights that fit are used."""
    for note in weights.notes:
        log.info("%s: %s", weights.source, note)
    if num_classes is None and weights.card is None:
        reasons = sorted({note.rsplit(": ", 1)[-1] for note in weights.notes})
        raise UserError(
            f"{weights.source} contains only an encoder, which cannot segment"
            f"{''.join(f' ({reason})' for reason in reasons)}; "
            f"start training from it (train.init_from), or load it with num_classes="
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
            log.warning("%s: %s", weights.source, note)
    return model


def read_weights(source: str | Path, hub: HubOptions | None = None) -> Weights:
    """Read the weights of any model or encoder that ``load`` accepts, and return them under our tensor names."""
    path = Path(source)
    if not path.exists():
        if not is_id(str(source)):
            raise UserError(
                f"no model at '{source}'; give a model folder such as runs/<recipe>/best, a checkpoint of another "
                f"project, or a hub id such as owner/name"
            )
        path = download(str(source), hub or HubOptions())
    if path.name in FOLDER_FILES and (path.parent / CONFIG).is_file():
        path = path.parent  # the folder's config.json describes the file
    if is_model_folder(path):
        return read_model_folder(path)
    return translate(read_checkpoint(path), str(source))


def is_model_folder(path: Path) -> bool:
    """Whether a path is a folder that is not of another project's format; files of the model may be missing."""
    if not path.is_dir():
        return False
    if not (path / CONFIG).is_file():
        files = [file for file in path.iterdir() if file.suffix in SAFETENSORS + PICKLES]
        return not files or (files == [path / WEIGHTS] and not is_foreign(read_file(files[0])))
    values = read_json(path / CONFIG)
    foreign_keys = {form.config_key for form in FORMATS.values()}
    return not (isinstance(values, dict) and foreign_keys & values.keys())


def read_model_folder(folder: Path) -> Weights:
    """Read a model folder of this package; raises a UserError if files are missing, damaged or do not match."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(
                f"'{folder}' is not a model folder: it has no {name}; give a folder such as runs/<recipe>/best"
            )
    card = read_card(folder / CONFIG)
    state = read_file(folder / WEIGHTS)
    expected = expected_state(card.model, len(card.classes))
    check_state(state, expected, folder / WEIGHTS)
    return Weights(str(folder), card.model, card, {name: state[name].to(expected[name].dtype) for name in expected})


def read_card(path: Path) -> ModelCard:
    """Read the model card in a config.json; raises a UserError that names the file and the invalid field."""
    values = read_json(path)
    if not isinstance(values, dict) or values.pop("format_version", None) != FORMAT_VERSION:
        raise UserError(
            f"{path}: expected a segformer model's config (format_version {FORMAT_VERSION}), got other JSON"
        )
    if "licence" in values:  # the spelling up to version 0.1.0
        values["license"] = values.pop("licence")
    try:
        card = from_json(ModelCard, values)
        check_card(card)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return card


def check_state(state: dict[str, Tensor], expected: State, path: Path) -> None:
    """Raise a UserError for the first tensor that is missing or unknown or has an unexpected shape."""
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

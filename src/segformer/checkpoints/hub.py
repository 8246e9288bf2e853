"""Download models from the Hugging Face hub by their id."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from segformer.checkpoints.weight_files import PICKLES, SAFETENSORS
from segformer.errors import UserError

log = logging.getLogger(__name__)
ANY_WEIGHTS = ["*.json", "*.safetensors", "*.bin", "*.pth", "*.pt"]
SAFE_WEIGHTS = ["*.json", "*.safetensors"]


def is_id(source: str) -> bool:
    """Whether a source has the form owner/name or owner/name@revision, and is not the path of a weight file.

    >>> is_id("nvidia/segformer-b0-finetuned-ade-512-512"), is_id("runs/mine/best"), is_id("mine/model.safetensors")
    (True, False, False)
    """
    if Path(source).suffix in SAFETENSORS + PICKLES:
        return False
    return re.fullmatch(r"[\w][\w.-]*/[\w][\w.-]*(@[\w./-]+)?", source) is not None


@dataclass(frozen=True, kw_only=True)
class HubOptions:
    """Options for downloads from the hub; ``huggingface_hub.snapshot_download`` documents them."""

    revision: str | None = None
    token: str | bool | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False
    force_download: bool = False


def download(source: str, options: HubOptions) -> Path:
    """Download owner/name[@revision] and return its local folder; files in the hub's cache are not downloaded again.

    Pickled weights are downloaded only if the repository has no safetensors.  With ``HF_HUB_OFFLINE=1`` only the cache
    is used.  Raises a UserError if the model cannot be downloaded.
    """
    from huggingface_hub import list_repo_files, snapshot_download

    repo_id, _, named_revision = source.partition("@")
    revision = options.revision or named_revision or None
    errors = hub_errors()
    patterns = ANY_WEIGHTS
    try:
        names = list_repo_files(repo_id, revision=revision, token=options.token)
        patterns = SAFE_WEIGHTS if any(name.endswith(".safetensors") for name in names) else ANY_WEIGHTS
    except errors:  # the files may still be in the cache
        log.debug("the hub does not list the files of %s", repo_id, exc_info=True)
    try:
        path = snapshot_download(
            repo_id,
            revision=revision,
            token=options.token,
            cache_dir=options.cache_dir,
            local_files_only=options.local_files_only,
            force_download=options.force_download,
            allow_patterns=patterns,
        )
    except errors as error:
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        raise UserError(
            f"no file or folder '{source}', and it could not be downloaded from the hub ({reason}); "
            f"correct the name, or give a local folder if there is no internet connection"
        ) from error
    return Path(path)


def hub_errors() -> tuple[type[Exception], ...]:
    """Return the types of all exceptions that a download may raise, including those of huggingface_hub."""
    from huggingface_hub import errors

    named = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (OSError, *named)

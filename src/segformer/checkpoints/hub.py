"""The Hugging Face hub: models by their id."""

import logging
import re
from pathlib import Path
from typing import Any

from segformer.errors import UserError

log = logging.getLogger(__name__)
FILES = ["*.json", "*.safetensors", "*.bin", "*.pth", "*.pt"]
SAFE = ["*.json", "*.safetensors"]


def is_id(source: str) -> bool:
    """Whether a source reads like owner/name, with perhaps @revision.

    >>> is_id("nvidia/segformer-b0-finetuned-ade-512-512"), is_id("runs/mine/best")
    (True, False)
    """
    return re.fullmatch(r"[\w][\w.-]*/[\w][\w.-]*(@[\w./-]+)?", source) is not None


def download(source: str, **options: Any) -> Path:
    """Return the local copy of owner/name[@revision], from the hub's cache where it is there.

    ``options`` are those of ``huggingface_hub.snapshot_download``.  Weights are taken as safetensors where the
    repository has them.  ``HF_HUB_OFFLINE=1`` keeps to the cache.
    Raises UserError where the model can not be had.
    """
    from huggingface_hub import list_repo_files, snapshot_download

    repo_id, _, named = source.partition("@")
    revision = options.pop("revision", None) or named or None
    try:
        patterns = FILES
        try:
            if any(name.endswith(".safetensors") for name in list_repo_files(repo_id, revision=revision)):
                patterns = SAFE
        except Exception:  # the cache may still have it
            log.debug("the hub does not list the files of %s", repo_id, exc_info=True)
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=patterns, **options))
    except Exception as error:  # of the hub, or of whichever client carries its requests
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        raise UserError(
            f"no file or folder '{source}', and the hub does not give a model of that name ({reason.strip(': ')}); "
            f"without a network give a local folder"
        ) from error

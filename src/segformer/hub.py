"""The Hugging Face hub: models by their id."""

import re
from pathlib import Path

FILES = ["*.json", "*.safetensors", "*.bin", "*.pth", "*.pt"]
SAFE = ["*.json", "*.safetensors"]


def is_id(source: str) -> bool:
    """Whether a source reads like owner/name, with perhaps @revision.

    >>> is_id("nvidia/segformer-b0-finetuned-ade-512-512"), is_id("runs/mine/best")
    (True, False)
    """
    return re.fullmatch(r"[\w][\w.-]*/[\w][\w.-]*(@[\w./-]+)?", source) is not None


def download(source: str) -> Path:
    """Return the local copy of owner/name[@revision], from the hub's cache where it is there.

    Weights are taken as safetensors where the repository has them.  ``HF_HUB_OFFLINE=1`` keeps to the cache.
    Raises FileNotFoundError where the model can not be had.
    """
    from huggingface_hub import list_repo_files, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    repo_id, _, revision = source.partition("@")
    try:
        patterns = FILES
        try:
            if any(name.endswith(".safetensors") for name in list_repo_files(repo_id, revision=revision or None)):
                patterns = SAFE
        except (OfflineModeIsEnabled, OSError):
            pass  # the cache may still have it
        return Path(snapshot_download(repo_id, revision=revision or None, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, HFValidationError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FileNotFoundError(
            f"no file or folder '{source}', and the hub does not give a model of that name ({reason})"
        ) from error

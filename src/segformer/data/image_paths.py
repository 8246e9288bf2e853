"""Image files: their endings, and how they are found in folders and among the inputs of a command."""

from collections.abc import Iterable
from pathlib import Path

from segformer.errors import UserError

TIFF_SUFFIXES = (".tif", ".tiff")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", *TIFF_SUFFIXES, ".webp", ".gif", ".ppm", ".pgm")


def list_images(folder: Path) -> list[Path]:
    """Return the image files in a folder and its subfolders, sorted by path; hidden files and folders are skipped."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and not _is_hidden(p, folder))
    return sorted(path for path in found if path.is_file())


def expand_inputs(inputs: Iterable[str | Path]) -> list[tuple[Path, Path]]:
    """Return (path, relative path for outputs) of each input file and of each image below an input folder.

    Raises a UserError if a path does not exist or if a folder contains no images.
    """
    expanded = []
    for given in map(Path, inputs):
        if given.is_dir():
            found = list_images(given)
            if not found:
                raise UserError(
                    f"{given}: no images in this folder; expected files such as {', '.join(IMAGE_SUFFIXES[:4])}"
                )
            expanded += [(path, path.relative_to(given)) for path in found]
        elif given.exists():
            expanded.append((given, Path(given.name)))
        else:
            raise UserError(f"{given}: no such file or folder")
    return expanded


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)

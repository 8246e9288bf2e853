"""Split lists: text files that name the images of a split, one per line."""

import unicodedata
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from segformer.data.image_paths import IMAGE_SUFFIXES, list_images
from segformer.errors import UserError


def read_split_list(path: Path, found: Mapping[str, Path], images: Path) -> list[str]:
    """Names of the images in a split list; raises a UserError for a line that names no image."""
    names = []
    for line in read_lines(path):
        name = find_listed(line, found, images)
        if name is None:
            raise UserError(f"{path}: names '{line}', but there is no such image in {images}; correct the list")
        names.append(name)
    return names


def read_lines(path: Path) -> list[str]:
    """Non-empty lines of a list; bytes that are not UTF-8 are decoded in the way Python decodes file names."""
    text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    return [line.strip() for line in text.splitlines() if line.strip()]


def find_listed(line: str, found: Mapping[str, Path], images: Path) -> str | None:
    """Name of the image that a line refers to; None if no image matches, or if the line is a path that fits two images.

    A line is a name without or with its ending, or a path that contains the folder of the images.
    """
    path = PurePosixPath(unicodedata.normalize("NFC", line))
    if str(path) in found:
        return str(path)
    bare = path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path
    if str(bare) in found:
        return str(bare)
    below = [str(bare.relative_to(above)) for above in bare.parents if above.name == images.name]
    names = [name for name in below if name in found]
    return names[0] if len(names) == 1 else None


def find_images(images: Path) -> dict[str, Path]:
    """Images below a folder by name; raises a UserError if two names differ only in their endings."""
    found: dict[str, Path] = {}
    for path in list_images(images):
        name = shared_name(path, images)
        if name in found:
            raise UserError(f"{path} and {found[name].name} would share a mask; rename one")
        found[name] = path
    return found


def shared_name(path: Path, folder: Path) -> str:
    """Name that an image and its mask share: its path relative to ``folder``, without the ending, in Unicode form NFC.

    macOS writes file names in the form NFD, which stores accents separately from letters.
    """
    return unicodedata.normalize("NFC", path.relative_to(folder).as_posix().removesuffix(path.suffix))

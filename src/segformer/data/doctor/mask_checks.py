"""Checks of how masks are stored: colors instead of ids, or damage by JPEG compression."""

from collections.abc import Iterator, Sequence

from segformer.config import Color
from segformer.data.doctor.facts import SampleFacts
from segformer.data.doctor.findings import Finding, count, rewriting
from segformer.data.doctor.labels import Labels, is_damaged

MAX_COLORS = 256  # a mask with more distinct colors is a photo or was smoothed


def check_colors(samples: Sequence[SampleFacts], labels: Labels) -> Iterator[Finding]:
    """Find masks with colors instead of ids."""
    colored = [s for s in samples if s.mask_mode and not s.jpeg]
    if colored:
        files = tuple(s.mask for s in colored)
        colors = list(dict.fromkeys(color for s in colored for color in s.colors))
        most = max(s.num_colors for s in colored)
        problem = f"{count(files, 'mask')} with colors (mode {colored[0].mask_mode}) instead of class indices"
        if colors:
            problem += f"; up to {most} distinct colors in one mask"
        fix, command = color_fix(colors, most, files)
        yield Finding("color_mask", "error", files, problem, fix, command)


def color_fix(colors: Sequence[Color], most: int, files: Sequence[str]) -> tuple[str, str]:
    """Return the fix and the shell command for color masks; one mask has up to ``most`` colors.

    If the masks were not decoded, ``colors`` is empty, and the fix is a general one.
    """
    if not colors:
        return "save the class index of every pixel as a gray PNG", ""
    if all(red == green == blue for red, green, blue in colors):
        return "the three channels are equal: keep only one", rewriting("a[..., 0]", files)
    if most > MAX_COLORS:
        return "these look like photos or smoothed masks: export them without antialiasing, as class indices", ""
    palette = ", ".join(str(list(color)) for color in colors[:12]) + (", ..." if len(colors) > 12 else "")
    fix = "write the class index of each color as a gray PNG"
    return f'{fix}; the colors found, as "palette" for dataset.json: [{palette}]', ""


def check_jpeg(samples: Sequence[SampleFacts], labels: Labels) -> Iterator[Finding]:
    """Find masks that JPEG compression has changed."""
    spoilt = [s for s in samples if s.jpeg or is_damaged(s, labels.table)]
    if spoilt:
        files = tuple(s.mask for s in spoilt)
        values = [len(s.ids) for s in spoilt if s.ids is not None]
        seen = f" (up to {max(values)} different values in one mask)" if values else ""
        problem = f"{count(files, 'mask')} changed by JPEG compression, which mixes the labels at every border{seen}"
        fix = "export them again as PNG from the annotation tool; converting the JPEG does not restore the labels"
        yield Finding("jpeg_mask", "error", files, problem, fix)

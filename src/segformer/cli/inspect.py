"""``segformer inspect``: check a data set before training."""

import math
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from segformer.cli.arguments import ANY_DATA, DATA_NAMES, DeviceArgument, choose_device
from segformer.cli.parsing import call
from segformer.cli.table import available_width, print_table
from segformer.recipes import find_recipe

if TYPE_CHECKING:
    from segformer.config import Recipe
    from segformer.data.doctor.contents import Split
    from segformer.data.doctor.diagnosis import Diagnosis
    from segformer.data.doctor.findings import Finding

COMMAND = "    "  # starts a line that the user can copy, and that is not wrapped


def run(arguments: Sequence[str]) -> None:
    """Parse the arguments and run the command."""
    call(inspect, arguments)


def inspect(
    data: Annotated[Positional[str], arg(metavar="DATA", help=ANY_DATA), DATA_NAMES],
    /,
    *,
    out: Annotated[
        Path | None,
        arg(
            metavar="DIR",
            help="Folder for diagnosis.json, pairs.png (images with their masks) and augmented.png (training crops); "
            "None: write no files.",
        ),
    ] = None,
    cheap: Annotated[bool, arg(help="Check only file names and headers, without decoding images.")] = False,
    recipe: Annotated[str, arg(metavar="RECIPE", help="Recipe whose training step is measured.")] = "folder_b0",
    device: DeviceArgument = "auto",
) -> None:
    """Check a data set before training: print its contents, its faults with their fixes, and the cost of a step.

    If training can start, the last line is "ready"; otherwise the exit status is 2.
    """
    from segformer.cli.terminal import progress_of
    from segformer.data.doctor.diagnosis import diagnose
    from segformer.data.doctor.sheets import recipe_for, write_sheets
    from segformer.files import write_json

    base = find_recipe(recipe)
    device = choose_device(device)
    with progress_of("inspect") as progress:
        diagnosis = diagnose(data, cheap=cheap, progress=progress)
    fitting = recipe_for(base, data, diagnosis)
    if out:
        write_json(out / "diagnosis.json", diagnosis.to_json())
        for path in write_sheets(fitting, out, augmented=diagnosis.ready):
            print(f"wrote {path}")
    print_diagnosis(diagnosis, step_costs(fitting, device) if diagnosis.ready and not cheap else ())
    if not diagnosis.ready:
        sys.exit(2)


def step_costs(recipe: "Recipe", device: str) -> tuple[str, str]:
    """Measure a training step of a recipe and the loading of its data; returns one sentence about each of the two."""
    from segformer.data.sources.catalog import open_data
    from segformer.training.cost import step_cost

    cost = step_cost(recipe, open_data(recipe.data), device)
    needed = recipe.train.batch_size / cost.seconds
    height, width = recipe.data.crop
    workers = max(1, math.ceil(1.25 * needed / cost.loader_rate))
    return (
        f"a step of {recipe.name} ({recipe.train.batch_size} crops of {height} x {width}) on {cost.device}: "
        f"{cost.seconds:.2f} s, {cost.bytes / 2**30:.1f} GiB; all {recipe.train.steps} steps: "
        f"{recipe.train.steps * cost.seconds / 60:.0f} min, plus the evaluations",
        f"one loading process delivers {cost.loader_rate:.0f} images/s, the steps need {needed:.1f}: "
        f"--train.workers {workers} is enough",
    )


def print_diagnosis(diagnosis: "Diagnosis", costs: Sequence[str] = ()) -> None:
    """Print the contents of the data, the costs of training, and every fault with its fix.

    The last line is ``ready`` if training can start.
    """
    print_splits(diagnosis)
    if any(split.class_pixels for split in diagnosis.splits.values()):
        print_classes(diagnosis)
    for line in (*costs, *report_lines(diagnosis)):
        print_line(line)


def print_line(line: str) -> None:
    """Print a line, wrapped to the width of the terminal; a command that the user can copy is not wrapped."""
    width = available_width()
    if width is not None and not line.startswith(COMMAND):
        indent = " " * (len(line) - len(line.lstrip()))
        line = textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    print(line)


def print_splits(diagnosis: "Diagnosis") -> None:
    """Print a table of the splits."""
    rows = []
    for name, split in diagnosis.splits.items():
        pixels = sum(split.class_pixels) + split.ignored_pixels
        ignored = f"{100 * split.ignored_pixels / pixels:.1f} %" if pixels else "-"
        rows.append([name, str(split.num_images), ignored, ", ".join(split.channels), sizes_text(split)])
    headings = ["split", "images", "ignored", "channels", "size (height x width)"]
    print_table(headings, rows, title=diagnosis.name)


def sizes_text(split: "Split") -> str:
    """Return a text with the three most frequent image sizes of a split, and how many other sizes there are."""
    sizes = [(f"{height} x {width}", times) for (height, width), times in split.sizes.items()]
    listed = ", ".join(size if len(sizes) == 1 else f"{size} ({times})" for size, times in sizes[:3])
    return listed + (f", {len(sizes) - 3} more" if len(sizes) > 3 else "")


def print_classes(diagnosis: "Diagnosis") -> None:
    """Print a table of the classes: share of each class in each split's labeled pixels, and its suggested weight."""
    splits = {name: split.shares() for name, split in diagnosis.splits.items() if split.class_pixels}
    rows = []
    for k, name in enumerate(diagnosis.classes):
        weight = "-" if diagnosis.class_weights is None else f"{diagnosis.class_weights[k]:.2f}"
        shares = [f"{100 * values[k]:.2f}" if values[k] else "-" for values in splits.values()]
        rows.append([name, *shares, weight, "rare" if name in diagnosis.rare else ""])
    print_table(["class", *splits, "weight", ""], rows, title="\nshare of the labeled pixels, %")
    print()


def report_lines(diagnosis: "Diagnosis") -> Iterator[str]:
    """Yield the lines of the report: notes, suggestions, every finding with its files and fix, and the verdict."""
    from segformer.data.doctor.contents import five_digits

    yield from (f"note: {note}" for note in diagnosis.notes)
    if diagnosis.mean:
        yield f"channels: mean {five_digits(diagnosis.mean)}, standard deviation {five_digits(diagnosis.std)}"
    if diagnosis.suggestions:
        yield "suggested options for segformer train (class weights are 1 / sqrt(share)):"
        yield from (f"{COMMAND}{option}" for option in diagnosis.suggestions)
    for finding in diagnosis.findings:
        yield ""
        yield from finding_lines(finding, diagnosis.name)
    yield ""
    yield verdict(diagnosis)


def finding_lines(finding: "Finding", root: str) -> Iterator[str]:
    """Yield the problem, files, fix and command of a finding; paths are relative to the data folder."""
    yield f"{finding.severity}: {relative(finding.problem, root)}"
    if finding.files:
        more = f" and {len(finding.files) - 3} more" if len(finding.files) > 3 else ""
        yield f"  in: {relative(', '.join(finding.files[:3]), root)}{more}"
    yield f"  fix: {finding.fix}"
    if finding.command:
        yield f"{COMMAND}{finding.command}"


def verdict(diagnosis: "Diagnosis") -> str:
    """Return the last line of the report: "ready", or how many errors must be fixed first."""
    from segformer.data.doctor.findings import count

    if diagnosis.ready:
        return "ready"
    warnings = [finding for finding in diagnosis.findings if finding.severity == "warning"]
    also = f" and look at {count(warnings, 'warning')}" if warnings else ""
    return f"not ready: fix {count(diagnosis.errors, 'error')}{also}, then inspect again"


def relative(text: str, root: str) -> str:
    """Make the paths in a text relative to the data folder."""
    return text.replace(f"{root.rstrip('/')}/", "")

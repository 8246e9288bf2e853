"""``segformer erf``: show which parts of an image influence the outputs of a model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from segformer.cli.arguments import (
    ANY_MODEL,
    DataArgument,
    DeviceArgument,
    LimitArgument,
    MasksArgument,
    SplitArgument,
    ThreadsArgument,
    call,
    load_data,
    load_model,
    print_note,
)
from segformer.config import Size
from segformer.errors import UserError

COMPARE = (
    "Networks to compare with: each is a model, a timm encoder (with random weights), or ENCODER=FILE for a timm "
    "encoder with the weights in a file."
)
OutArgument = Annotated[
    Path, arg(metavar="DIR", help="Folder for the results; an interrupted measurement in it is resumed.")
]
SIZE = (
    "Height and width to which images are resized and cropped, multiples of 64; None: both are the short side of the "
    "model's preprocessing, rounded to such a multiple."
)


def run(arguments: Sequence[str]) -> None:
    """Parse the arguments and run the command."""
    call(erf, arguments)


def erf(
    model: Annotated[Positional[str], arg(metavar="MODEL", help=ANY_MODEL)],
    /,
    *,
    data: DataArgument,
    split: SplitArgument = "val",
    masks: MasksArgument = "",
    limit: LimitArgument = 100,
    size: Annotated[Size | None, arg(metavar="H W", help=SIZE)] = None,
    compare: Annotated[tuple[str, ...], arg(metavar="MODEL|ENCODER|ENCODER=FILE", help=COMPARE)] = (),
    out: OutArgument = Path("erf"),
    device: DeviceArgument = "auto",
    threads: ThreadsArgument = 0,
) -> None:
    """Show where a model looks: the effective receptive fields of its outputs (Sec. 3.2, Figure 3) and its attention.

    Writes DIR/erf.html, DIR/erf.png and DIR/erf.json. After Ctrl-C, run the same command again to resume.
    """
    from segformer.cli.terminal import progress_of
    from segformer.receptive_field.measure import choose_size, measure
    from segformer.receptive_field.numbers import summary
    from segformer.receptive_field.page import attend, write_results
    from segformer.receptive_field.probes import probe_all

    if limit is not None and limit < 1:
        raise UserError(f"--limit must be at least 1, got {limit}")
    source = load_data(data, masks)
    loaded = load_model(model, device, threads)
    size = choose_size(size, loaded.card.preprocessing)
    samples = source.samples(split)
    probes = probe_all(loaded, model, compare, size)
    with resume_hint(out), progress_of("erf") as progress:
        fields = measure(
            probes, source.name, samples, card=loaded.card, size=size, limit=limit, out=out, progress=progress
        )
    about = {"data": f"{source.name}, {split}", "size": f"{size[0]} x {size[1]}"}
    write_results(out, fields, about, attend(loaded, samples[0], size))
    print(f"wrote {out / 'erf.html'}, erf.png, erf.json")
    for label, total in list(fields.items())[1:]:
        print(f"{label}: {summary(total)}")
    print(summary(fields[model]))


@contextmanager
def resume_hint(out: Path) -> Iterator[None]:
    """If Ctrl-C interrupts the block, print where the measurement so far is stored and how to resume it."""
    try:
        yield
    except KeyboardInterrupt:
        print_note(f"the measurement so far is stored in {out}; run the same command to resume")
        raise

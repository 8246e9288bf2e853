"""``segformer erf``: show where a model looks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from segformer.cli.arguments import (
    ANY_MODEL,
    DataArgument,
    DeviceArgument,
    ThreadsArgument,
    call,
    load_data,
    load_model,
    print_note,
)
from segformer.config import Size
from segformer.errors import UserError

COMPARE = (
    "Networks to compare with: models, encoders of timm with random weights, or ENCODER=FILE for timm's encoder with "
    "the weights of a file."
)
OutArgument = Annotated[
    Path, arg(metavar="DIR", help="Folder for the results; an interrupted measurement there is resumed.")
]
SIZE = "Height and width to which images are resized and cropped; None: a square of the model's short side."


def run(arguments: Sequence[str]) -> None:
    """Parse the arguments and run the command."""
    call(erf, arguments)


def erf(
    model: Annotated[Positional[str], arg(metavar="MODEL", help=ANY_MODEL)],
    /,
    *,
    data: DataArgument,
    split: Annotated[str, arg(help="Split to take images from: train, val or test.")] = "val",
    masks: Annotated[str, arg(metavar="DIR", help="Folder of the masks, as data.masks in training.")] = "",
    limit: Annotated[int, arg(metavar="N", help="Number of images to take from the split.")] = 100,
    size: Annotated[Size | None, arg(metavar="H W", help=SIZE)] = None,
    compare: Annotated[tuple[str, ...], arg(metavar="MODEL|ENCODER|ENCODER=FILE", help=COMPARE)] = (),
    out: OutArgument = Path("erf"),
    device: DeviceArgument = "auto",
    threads: ThreadsArgument = 0,
) -> None:
    """Show where a model looks: effective receptive fields of its outputs (Sec. 3.2, Figure 3), and attention.

    Writes DIR/erf.html, erf.png and erf.json. After Ctrl-C the same command resumes where the measurement stopped.
    """
    from segformer.cli.terminal import progress_of
    from segformer.receptive_field.measure import choose_size, measure
    from segformer.receptive_field.numbers import summary
    from segformer.receptive_field.page import attend, write_results
    from segformer.receptive_field.probes import probe_all

    if limit < 1:
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
    """After Ctrl-C, say where the images measured so far are kept and how to resume."""
    try:
        yield
    except KeyboardInterrupt:
        print_note(f"the images measured so far are kept in {out}; run the same command to resume")
        raise

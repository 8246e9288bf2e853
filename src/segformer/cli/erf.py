"""The command that shows where a model looks."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from segformer.cli.arguments import ANY_MODEL, DataArgument, DeviceArgument, call, load_data, load_model
from segformer.config import Size
from segformer.errors import UserError

COMPARE = "Other models, or encoders of timm: with random weights, or with those of a file."
SIZE = "Images are resized to cover it and cut; None: a square of the model's short side."


def run(arguments: Sequence[str]) -> None:
    """Parse the arguments and run the command."""
    call(erf, arguments)


def erf(
    model: Annotated[Positional[str], arg(metavar="MODEL", help=ANY_MODEL)],
    /,
    *,
    data: DataArgument,
    split: Annotated[str, arg(help="Which images: train, val, test.")] = "val",
    masks: Annotated[str, arg(metavar="DIR", help="As data.masks in training.")] = "",
    limit: Annotated[int, arg(help="Only the first N images.")] = 100,
    size: Annotated[Size | None, arg(metavar="H W", help=SIZE)] = None,
    compare: Annotated[tuple[str, ...], arg(metavar="MODEL|NAME|NAME=FILE", help=COMPARE)] = (),
    out: Annotated[Path, arg(metavar="DIR", help="Where results go.")] = Path("erf"),
    device: DeviceArgument = "auto",
    threads: Annotated[int, arg(help="CPU threads; 0: as many as there are cores.")] = 0,
) -> None:
    """Show where a model looks: effective receptive fields of stages and decoder (Sec. 3.2, Figure 3), and attention.

    Writes erf.html, erf.png and erf.json, and erf.npz: Ctrl-C keeps what there is, and the same command goes on.
    """
    from segformer.cli.terminal import progress_of
    from segformer.receptive_field.measure import choose_size, measure
    from segformer.receptive_field.page import picture_of, summary, write_results
    from segformer.receptive_field.probes import probe_all

    if limit < 1:
        raise UserError(f"--limit must be at least 1, got {limit}")
    source = load_data(data, masks)
    loaded = load_model(model, device, threads)
    size = choose_size(size, loaded.card.preprocessing)
    probes = probe_all(loaded, model, compare, size)
    try:
        with progress_of("erf") as progress:
            fields = measure(
                probes,
                source.name,
                source.samples(split),
                card=loaded.card,
                size=size,
                limit=limit,
                out=out,
                progress=progress,
            )
    except KeyboardInterrupt:
        print(f"what was measured is kept in {out}; the same command goes on from there", file=sys.stderr)
        raise
    about = {"data": f"{source.name}, {split}", "size": f"{size[0]} x {size[1]}"}
    write_results(out, fields, about, picture_of(loaded, source.samples(split)[0], size))
    print(f"wrote {out / 'erf.html'}, erf.png, erf.json")
    for label, total in list(fields.items())[1:]:
        print(f"{label}: {summary(total)}")
    print(summary(fields[model]))

"""Code shared by ``train`` and ``pretrain``: it finds the recipe, and starts a process for each device."""

import sys
from argparse import ArgumentParser, BooleanOptionalAction
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

RunDirArgument = Annotated[Path | None, arg(metavar="DIR", help="Folder of the run; None: runs/RECIPE.")]
ResumeArgument = Annotated[
    bool, arg(help="Resume the run in the run folder from its last save; RECIPE may then be left out.")
]


@dataclass(frozen=True)
class RecipeChoice:
    """The arguments that decide which recipe is used; the fields of this recipe become the other options."""

    name: str | None
    """Name of the recipe or path of a recipe.json; None if it was not given."""
    resumed: Path | None
    """Folder of the run to resume; None if --resume or --run-dir was not given."""
    encoder: str | None = None
    """Encoder that replaces that of the recipe; None if --model.encoder was not given."""

    def recipe_of(self, default: str) -> str:
        """Return ``name`` if it was given, else the recipe.json of the run to resume, else the default."""
        return self.name or (str(self.resumed / "recipe.json") if self.resumed else default)


def choose_recipe(arguments: Sequence[str]) -> RecipeChoice:
    """Read RECIPE, --run-dir, --resume and --model.encoder alone: the defaults of all other options depend on them."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--run-dir", "--run_dir", type=Path, nargs="?")
    parser.add_argument("--model.encoder", dest="encoder", nargs="?")
    parser.add_argument("--resume", action=BooleanOptionalAction)
    known, _ = parser.parse_known_args(list(arguments))
    name = arguments[0] if arguments and not arguments[0].startswith("-") else None
    return RecipeChoice(name, known.run_dir if known.resume else None, known.encoder)


def launch_devices(arguments: Sequence[str], devices: int) -> None:
    """If ``devices`` is above 1, start one process per device, and exit when all these processes have ended.

    Does nothing if this process was itself started as one of several: by this function, torchrun or SLURM.
    """
    from segformer.training.processes import launch, started_outside

    if devices > 1 and not started_outside():
        sys.exit(launch(arguments, devices))

"""What ``train`` and ``pretrain`` share: the recipe whose fields are the options, and the start of a run."""

import sys
from argparse import ArgumentParser, BooleanOptionalAction
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

RunDirArgument = Annotated[Path | None, arg(metavar="DIR", help="Run folder; None: runs/RECIPE.")]
ResumeArgument = Annotated[
    bool, arg(help="Resume an existing run from its last save; without RECIPE, its own recipe is used.")
]


@dataclass(frozen=True)
class RecipeChoice:
    """The part of a command line that says which recipe the other options belong to."""

    name: str | None
    """RECIPE, a name or a recipe.json, if it was given."""
    resumed: Path | None
    """Folder of the run to resume, if it was given."""

    def recipe_of(self, default: str) -> str:
        """Return RECIPE, else the recipe.json of the run to resume, else the default."""
        return self.name or (str(self.resumed / "recipe.json") if self.resumed else default)


def choose_recipe(arguments: Sequence[str]) -> RecipeChoice:
    """Read RECIPE, --run-dir and --resume, before the other options are known."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--run-dir", "--run_dir", type=Path, nargs="?")
    parser.add_argument("--resume", action=BooleanOptionalAction)
    known, _ = parser.parse_known_args(list(arguments))
    name = arguments[0] if arguments and not arguments[0].startswith("-") else None
    return RecipeChoice(name, known.run_dir if known.resume else None)


def launch_devices(arguments: Sequence[str], devices: int) -> None:
    """Start one process per device and exit when they have ended, unless this process is already one of several."""
    from segformer.training.processes import launch, started_outside

    if devices > 1 and not started_outside():
        sys.exit(launch(arguments, devices))

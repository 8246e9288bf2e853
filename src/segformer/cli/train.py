"""``segformer train``: train a model with a recipe; every field of the recipe is an option."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from segformer.cli.arguments import (
    ANY_DATA,
    DATA_NAMES,
    DeviceArgument,
    DevicesArgument,
    NodesArgument,
    ThreadsArgument,
    choose_device,
    parse,
    set_threads,
)
from segformer.cli.recipe_arguments import ResumeArgument, RunDirArgument, choose_recipe, launch_devices
from segformer.config import DataConfig, EvalConfig, ModelConfig, Preprocessing, Recipe, TrainConfig
from segformer.errors import UserError
from segformer.recipes import find_recipe
from segformer.validation import check_choice

DEFAULT_RECIPE = "folder_b0"


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a model with a recipe; every field of the recipe is an option.

    Writes into runs/RECIPE: recipe.json, metrics.jsonl, TensorBoard events, best/ (the model to use) and last/ (to
    resume from). Ctrl-C saves the run before it stops; --resume continues it.
    """

    recipe: Annotated[
        Positional[str],
        arg(metavar="RECIPE", help="Name of a recipe (see --list), or path of a recipe.json; must come first."),
    ]
    data: Annotated[
        str | None, arg(metavar="FOLDER|NAME=FOLDER", help=f"{ANY_DATA} None: the recipe's."), DATA_NAMES
    ] = None
    run_dir: RunDirArgument = None
    resume: ResumeArgument = False
    list: bool = False
    """List the recipes with the results that the paper reports, and stop."""
    seeds: Annotated[
        int,
        arg(
            metavar="N", help="Number of runs, with the seeds train.seed, train.seed + 1, ...; prints their mean mIoU."
        ),
    ] = 1
    find: Annotated[
        Literal["lr", "batch"] | None,
        arg(
            metavar="lr|batch",
            help="Do not train; search for a suitable learning rate (lr) or micro-batch size (batch).",
        ),
    ] = None
    device: DeviceArgument = "auto"
    devices: DevicesArgument = 1
    nodes: NodesArgument = 1
    threads: ThreadsArgument = 0
    train_: Annotated[TrainConfig, arg(name="train")]
    data_: Annotated[DataConfig, arg(name="data")]
    model_: Annotated[ModelConfig, arg(name="model")]
    preprocessing: Preprocessing
    eval: EvalConfig

    @classmethod
    def from_recipe(cls, recipe: Recipe, name: str) -> "Train":
        """Return a command whose options have the values of a recipe."""
        return cls(
            recipe=name,
            train_=recipe.train,
            data_=recipe.data,
            model_=recipe.model,
            preprocessing=recipe.preprocessing,
            eval=recipe.eval,
        )

    def to_recipe(self, base: Recipe) -> Recipe:
        """Return a copy of ``base`` with the values of this command's options."""
        from segformer.data.sources.catalog import with_data

        return replace(
            base,
            data=self.data_ if self.data is None else with_data(self.data_, self.data),
            model=self.model_,
            preprocessing=self.preprocessing,
            train=self.train_,
            eval=self.eval,
        )


def run(arguments: Sequence[str]) -> None:
    """Train a model with a recipe, or list the recipes."""
    choice = choose_recipe(arguments)
    base = with_encoder(find_recipe(choice.recipe_of(DEFAULT_RECIPE)), choice.encoder)
    name = choice.name or DEFAULT_RECIPE
    command = parse(Train, arguments, "train", default=Train.from_recipe(base, name))
    if command.recipe != name:
        raise UserError(f"RECIPE must come first: segformer train {command.recipe} ...")
    if command.list:
        from segformer.cli.recipe_list import print_recipes

        print_recipes()
    elif command.resume and choice.name is None and command.run_dir is None:
        raise UserError("--resume needs to know the run: give --run-dir DIR, or a RECIPE")
    elif choice.name or command.data or command.resume:
        launch_devices(["train", *arguments], command.devices)
        set_threads(command.threads)
        run_training(command, command.to_recipe(base))
    else:
        raise UserError("train needs a RECIPE (see segformer train --list) or --data FOLDER")


def with_encoder(recipe: Recipe, encoder: str | None) -> Recipe:
    """Return the recipe with another encoder and the decoder width that goes with it; None keeps the recipe's own."""
    if encoder is None or encoder == recipe.model.encoder:
        return recipe
    from segformer.models.encoders import ENCODERS

    check_choice("model.encoder", encoder, ENCODERS)
    width = ENCODERS[encoder].decoder_channels
    return replace(recipe, model=replace(recipe.model, encoder=encoder, decoder_channels=width))


def run_training(command: Train, recipe: Recipe) -> None:
    """Train with one seed or several, or run the search that --find asks for."""
    device = choose_device(command.device)
    if command.seeds < 1:
        raise UserError(f"--seeds must be at least 1, got {command.seeds}")
    if command.find:
        search(command.find, recipe, command.run_dir, device)
        return
    from segformer.cli.run_progress import RunProgress

    options: dict[str, Any] = {
        "resume": command.resume,
        "device": device,
        "devices": command.devices,
        "nodes": command.nodes,
        "reporter": RunProgress(),
    }
    train_once = train_series if command.seeds > 1 else train_recipe
    train_once(recipe, command, options)


def search(what: Literal["lr", "batch"], recipe: Recipe, run_dir: Path | None, device: str) -> None:
    """Search for a learning rate or a micro-batch size, and print the result."""
    from segformer.cli.findings import print_batches, print_rates, searching
    from segformer.training.finders import find_batch, find_learning_rate

    if what == "batch":
        print_batches(find_batch(recipe, device), recipe.train.batch_size)
        return
    with searching("learning rates") as progress:
        found = find_learning_rate(recipe, run_dir, device, progress)
    print_rates(found)


def train_series(recipe: Recipe, command: Train, options: dict[str, Any]) -> None:
    """Train with several seeds, and print the mean and standard deviation of their mIoU."""
    from segformer.cli.findings import print_seeds
    from segformer.training.processes import is_rank_zero
    from segformer.training.seeds import train_seeds

    found = train_seeds(recipe, command.seeds, command.run_dir, **options)
    if found.interrupted:
        if is_rank_zero():
            print(
                f"stopped after {len(found.miou)} of {command.seeds} seeds; resume with the same command and --resume"
            )
        sys.exit(128 + found.interrupted)
    if is_rank_zero():
        print_seeds(found)


def train_recipe(recipe: Recipe, command: Train, options: dict[str, Any]) -> None:
    """Train once, and print the path of the best model and its mIoU."""
    from segformer.training.processes import is_rank_zero
    from segformer.training.segmentation import train

    result = train(recipe, command.run_dir, **options)
    if not is_rank_zero():
        return
    if result.interrupted:
        print(f"saved at step {result.step}; resume with: segformer train --run-dir {result.run_dir} --resume")
        sys.exit(128 + result.interrupted)
    print(f"best model: {result.run_dir / 'best'} (step {result.best_step})")
    print(f"mIoU {result.best_miou:.4f}")

"""``segformer train``: every field of a recipe is an option."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from segformer.cli.arguments import (
    DeviceArgument,
    DevicesArgument,
    NodesArgument,
    ThreadsArgument,
    choose_device,
    parse,
    resumed_run,
    set_threads,
)
from segformer.config import DataConfig, EvalConfig, ModelConfig, Preprocessing, Recipe, TrainConfig
from segformer.errors import UserError
from segformer.recipes import find_recipe


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a model as a recipe says; every field of the recipe is an option.

    Writes runs/RECIPE: recipe.json, metrics.jsonl, TensorBoard events, best/ (the model to use) and last/ (to go on
    from). Ctrl-C saves before it stops; --resume goes on.
    """

    recipe: Annotated[Positional[str], arg(metavar="RECIPE", help="Name (see --list) or recipe.json; comes first.")]
    data: Annotated[str | None, arg(metavar="NAME=ROOT|FOLDER", help="Data to train on; None: the recipe's.")] = None
    run_dir: Annotated[Path | None, arg(metavar="DIR", help="Run folder; None: runs/RECIPE.")] = None
    resume: bool = False
    """Go on with an existing run folder; without RECIPE its own recipe is used."""
    list: bool = False
    """Show the recipes with the paper's figures and stop."""
    seeds: Annotated[int, arg(metavar="N", help="Train N times, from train.seed up; mean and deviation.")] = 1
    find: Annotated[
        Literal["lr", "batch"] | None,
        arg(metavar="lr|batch", help="Instead of training, try learning rates or sizes of a micro-batch."),
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
    def of(cls, recipe: Recipe, name: str) -> "Train":
        """Return the command whose defaults are a recipe."""
        return cls(
            recipe=name,
            train_=recipe.train,
            data_=recipe.data,
            model_=recipe.model,
            preprocessing=recipe.preprocessing,
            eval=recipe.eval,
        )


def run(arguments: Sequence[str]) -> None:
    """Train a model as a recipe says."""
    named = bool(arguments) and not arguments[0].startswith("-")
    name = arguments[0] if named else "folder_b0"
    resumed = resumed_run(arguments)
    base = find_recipe(name) if named or resumed is None else find_recipe(str(resumed / "recipe.json"))
    command = parse(Train, arguments, "train", default=Train.of(base, name))
    if command.recipe != name:
        raise UserError(f"RECIPE comes first: segformer train {command.recipe} ...")
    if command.list:
        from segformer.cli.recipe_list import print_recipes

        print_recipes()
    elif command.resume and not named and command.run_dir is None:
        raise UserError("--resume needs the run to go on with: --run-dir DIR, or a RECIPE")
    elif named or command.data or command.resume:
        run_training(command, base, arguments)
    else:
        raise UserError("train needs a RECIPE (see segformer train --list) or --data FOLDER")


def run_training(command: Train, base: Recipe, arguments: Sequence[str]) -> None:
    """Train, and end with a plain line."""
    from segformer.data.sources.catalog import with_data
    from segformer.training.finders import find
    from segformer.training.processes import is_first, launch, started_outside
    from segformer.training.run import train
    from segformer.training.seeds import train_seeds

    if command.seeds < 1:
        raise UserError(f"--seeds must be at least 1, got {command.seeds}")
    if command.devices > 1 and not started_outside():
        sys.exit(launch(["train", *arguments], command.devices))
    recipe = replace(
        base,
        data=command.data_ if command.data is None else with_data(command.data_, command.data),
        model=command.model_,
        preprocessing=command.preprocessing,
        train=command.train_,
        eval=command.eval,
    )
    set_threads(command.threads)
    device = choose_device(command.device)
    if command.find:
        find(command.find, recipe, command.run_dir, device)
        return
    options: dict[str, Any] = {
        "resume": command.resume,
        "device": device,
        "devices": command.devices,
        "nodes": command.nodes,
    }
    if command.seeds > 1:
        train_seeds(recipe, command.seeds, command.run_dir, **options)
        return
    result = train(recipe, command.run_dir, **options)
    if not is_first():
        return
    if result.interrupted:
        print(f"saved at step {result.step}; go on with: segformer train --run-dir {result.run_dir} --resume")
        sys.exit(128 + result.interrupted)
    print(f"best model: {result.run_dir / 'best'} (step {result.best_step})")
    print(f"mIoU {result.best_miou:.4f}")

"""``segformer pretrain``: train an encoder to classify images; every field of the recipe is an option."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from segformer.cli.arguments import (
    DeviceArgument,
    DevicesArgument,
    NodesArgument,
    ThreadsArgument,
    choose_device,
    parse,
    set_threads,
)
from segformer.cli.recipe_arguments import ResumeArgument, RunDirArgument, choose_recipe, launch_devices
from segformer.errors import UserError
from segformer.pretraining.recipes import PretrainRecipe, find_pretrain_recipe
from segformer.validation import OneOf

DEFAULT_RECIPE = "imagenet_b0"


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Train an encoder to classify images; every field of the recipe is an option.

    Writes into runs/RECIPE: recipe.json, metrics.jsonl, TensorBoard events, best/ (an encoder for --train.init-from)
    and last/ (to resume from). Ctrl-C saves the run before it stops; --resume continues it.
    """

    recipe: Annotated[
        Positional[str],
        arg(metavar="RECIPE", help="Name of a recipe, or path of a recipe.json; must come first."),
        OneOf("pretraining.recipes.PRETRAIN_RECIPES", "Recipes"),
    ]
    data: Annotated[str | None, arg(metavar="FOLDER", help="Folder of the images; replaces --root.")] = None
    run_dir: RunDirArgument = None
    resume: ResumeArgument = False
    device: DeviceArgument = "auto"
    devices: DevicesArgument = 1
    nodes: NodesArgument = 1
    threads: ThreadsArgument = 0
    options: Annotated[OmitArgPrefixes[PretrainRecipe], arg(name="recipe")]


def run(arguments: Sequence[str]) -> None:
    """Pre-train an encoder with a recipe."""
    choice = choose_recipe(arguments)
    name = choice.name or DEFAULT_RECIPE
    default = Pretrain(recipe=name, options=find_pretrain_recipe(choice.recipe_of(DEFAULT_RECIPE)))
    command = parse(Pretrain, arguments, "pretrain", default=default)
    if command.recipe != name:
        raise UserError(f"RECIPE must come first: segformer pretrain {command.recipe} ...")
    if choice.name is None and choice.resumed is None:
        raise UserError("pretrain needs a RECIPE first, such as imagenet_b0; see segformer pretrain --help")
    launch_devices(["pretrain", *arguments], command.devices)
    set_threads(command.threads)
    run_pretraining(command)


def run_pretraining(command: Pretrain) -> None:
    """Pre-train, and print the path of the best encoder and its top-1 accuracy."""
    from segformer.cli.run_progress import RunProgress
    from segformer.pretraining.task import pretrain
    from segformer.training.processes import is_rank_zero

    result = pretrain(
        command.options if command.data is None else replace(command.options, root=command.data),
        command.run_dir,
        resume=command.resume,
        device=choose_device(command.device),
        devices=command.devices,
        nodes=command.nodes,
        reporter=RunProgress(),
    )
    if not is_rank_zero():
        return
    if result.interrupted:
        print(f"saved in epoch {result.epoch}; resume with: segformer pretrain --run-dir {result.run_dir} --resume")
        sys.exit(128 + result.interrupted)
    print(f"best encoder: {result.run_dir / 'best'}; use it with: segformer train ... --train.init-from")
    print(f"top-1 {result.best_top1:.4f}")

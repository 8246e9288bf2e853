"""``segformer pretrain``: every field of a pre-training recipe is an option."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

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
from segformer.errors import UserError
from segformer.pretraining.recipes import PretrainRecipe, find_pretrain_recipe, read_pretrain_recipe


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Train an encoder to classify images, as a recipe says; every field of the recipe is an option.

    Writes runs/RECIPE: recipe.json, metrics.jsonl, TensorBoard events, best/ (an encoder for --train.init-from) and
    last/ (to go on from). Ctrl-C saves before it stops; --resume goes on.
    """

    recipe: Annotated[
        Positional[str],
        arg(metavar="RECIPE", help="imagenet_b0 ... b5, tiny_imagenet_b0, or recipe.json; comes first."),
    ]
    data: Annotated[str | None, arg(metavar="FOLDER", help="The same as --root.")] = None
    run_dir: Annotated[Path | None, arg(metavar="DIR", help="Run folder; None: runs/RECIPE.")] = None
    resume: bool = False
    """Go on with an existing run folder; without RECIPE its own recipe is used."""
    device: DeviceArgument = "auto"
    devices: DevicesArgument = 1
    nodes: NodesArgument = 1
    threads: ThreadsArgument = 0
    options: OmitArgPrefixes[PretrainRecipe]


def run(arguments: Sequence[str]) -> None:
    """Pre-train an encoder as a recipe says, and end with a plain line."""
    from segformer.pretraining.task import pretrain
    from segformer.training.processes import is_first, launch, started_outside

    named = bool(arguments) and not arguments[0].startswith("-")
    name = arguments[0] if named else "imagenet_b0"
    resumed = resumed_run(arguments)
    base = find_pretrain_recipe(name) if named or resumed is None else read_pretrain_recipe(resumed / "recipe.json")
    command = parse(Pretrain, arguments, "pretrain", default=Pretrain(recipe=name, options=base))
    if not named and resumed is None:
        raise UserError("pretrain needs a RECIPE first, such as imagenet_b0; see segformer pretrain --help")
    if command.devices > 1 and not started_outside():
        sys.exit(launch(["pretrain", *arguments], command.devices))
    recipe = command.options if command.data is None else replace(command.options, root=command.data)
    set_threads(command.threads)
    result = pretrain(
        recipe,
        command.run_dir,
        resume=command.resume,
        device=choose_device(command.device),
        devices=command.devices,
        nodes=command.nodes,
    )
    if not is_first():
        return
    if result.interrupted:
        print(f"saved in epoch {result.epoch}; go on with: segformer pretrain --run-dir {result.run_dir} --resume")
        sys.exit(128 + result.interrupted)
    print(f"best encoder: {result.run_dir / 'best'}; use it with: segformer train ... --train.init-from")
    print(f"top-1 {result.best_top1:.4f}")

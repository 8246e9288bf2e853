"""Report page of a pre-training run: main results, curves, recipe, machine."""

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from segformer.pretraining.recipes import PRETRAIN_RECIPES, PretrainRecipe
from segformer.training.page import run_curves, run_figures, write_run_page


def write_pretraining_page(
    run_dir: Path, recipe: PretrainRecipe, model: nn.Module, steps: int, labels: Mapping[str, str]
) -> Path:
    """Write report.html into the run folder and return its path; ``labels`` maps top1 and top5 to their titles."""
    parameters = f"{sum(parameter.numel() for parameter in model.parameters()):,}"
    return write_run_page(
        run_dir,
        recipe,
        PRETRAIN_RECIPES.get(recipe.name),
        f"Data: {recipe.root}",
        run_figures(run_dir, steps, "top1", labels["top1"]) | {"encoder": recipe.encoder, "parameters": parameters},
        run_curves(run_dir, {name: f"{label} (val)" for name, label in labels.items()}),
    )

"""SegFormer: semantic segmentation with a hierarchical Transformer encoder and an All-MLP decoder.

The names below are loaded when they are first used, so that importing the package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segformer.checkpoint import convert as convert
    from segformer.checkpoint import from_pretrained as from_pretrained
    from segformer.checkpoint import load as load
    from segformer.checkpoint import push_to_hub as push_to_hub
    from segformer.checkpoint import save as save
    from segformer.config import ModelConfig as ModelConfig
    from segformer.config import Recipe as Recipe
    from segformer.data.catalog import open_data as open_data
    from segformer.deploy.predictor import Predictor as Predictor
    from segformer.evaluation.evaluate import evaluate as evaluate
    from segformer.evaluation.evaluate import examine as examine
    from segformer.models.segmenter import Segmenter as Segmenter
    from segformer.models.segmenter import build_model as build_model
    from segformer.recipes import RECIPES as RECIPES
    from segformer.segmentation import Segmentation as Segmentation
    from segformer.training.loop import train as train

__version__ = "0.1.0"

_HOMES = {
    "convert": "checkpoint",
    "from_pretrained": "checkpoint",
    "load": "checkpoint",
    "push_to_hub": "checkpoint",
    "save": "checkpoint",
    "ModelConfig": "config",
    "Recipe": "config",
    "open_data": "data.catalog",
    "Predictor": "deploy.predictor",
    "evaluate": "evaluation.evaluate",
    "examine": "evaluation.evaluate",
    "Segmenter": "models.segmenter",
    "build_model": "models.segmenter",
    "RECIPES": "recipes",
    "Segmentation": "segmentation",
    "train": "training.loop",
}
__all__ = ["__version__", *_HOMES]  # the table is the list


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'segformer' has no attribute '{name}'")
    return getattr(import_module(f"segformer.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

"""SegFormer: semantic segmentation with a hierarchical Transformer encoder and an All-MLP decoder.

A public name is imported only when it is first used, so ``import segformer`` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segformer.checkpoints.conversion import convert as convert
    from segformer.checkpoints.model_folder import from_pretrained as from_pretrained
    from segformer.checkpoints.model_folder import load as load
    from segformer.checkpoints.model_folder import push_to_hub as push_to_hub
    from segformer.checkpoints.model_folder import save as save
    from segformer.config import ModelConfig as ModelConfig
    from segformer.config import Recipe as Recipe
    from segformer.data.sources.catalog import open_data as open_data
    from segformer.evaluation.evaluate import evaluate as evaluate
    from segformer.inference.predictor import Predictor as Predictor
    from segformer.models.build import build_model as build_model
    from segformer.models.build import list_models as list_models
    from segformer.models.segmenter import Segmenter as Segmenter
    from segformer.recipes import RECIPES as RECIPES
    from segformer.segmentation import Segmentation as Segmentation
    from segformer.training.segmentation import train as train

__version__ = "0.1.0"

_HOMES = {
    "convert": "checkpoints.conversion",
    "from_pretrained": "checkpoints.model_folder",
    "load": "checkpoints.model_folder",
    "push_to_hub": "checkpoints.model_folder",
    "save": "checkpoints.model_folder",
    "ModelConfig": "config",
    "Recipe": "config",
    "open_data": "data.sources.catalog",
    "Predictor": "inference.predictor",
    "evaluate": "evaluation.evaluate",
    "Segmenter": "models.segmenter",
    "build_model": "models.build",
    "list_models": "models.build",
    "RECIPES": "recipes",
    "Segmentation": "segmentation",
    "train": "training.segmentation",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'segformer' has no attribute '{name}'")
    return getattr(import_module(f"segformer.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

"""A transformers SegFormer with randomized weights, and the same weights under our names."""

import re

import torch
from torch import Tensor, nn
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from segformer.models.build import build_model
from segformer.models.encoders.mit import NUM_HEADS
from segformer.models.segmenter import Segmenter
from segformer.published import MIT_SIZES

RENAMES = (  # of the names that save_pretrained writes and, since 5.23, the model in memory has
    (r"^segformer\.stages\.(\d)\.patch_embeddings\.proj\.", r"encoder.stages.\1.embed.project."),
    (r"^segformer\.stages\.(\d)\.patch_embeddings\.layer_norm\.", r"encoder.stages.\1.embed.norm."),
    (r"^segformer\.stages\.(\d)\.blocks\.(\d+)\.", r"encoder.stages.\1.blocks.\2."),
    (r"^segformer\.stages\.(\d)\.layer_norm\.", r"encoder.stages.\1.norm."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.sequence_reduction\.sequence_reduction\.", ".attention.reduce."),
    (r"\.attention\.sequence_reduction\.layer_norm\.", ".attention.norm."),
    (r"\.attention\.q_proj\.", ".attention.query."),
    (r"\.attention\.o_proj\.", ".attention.output."),
    (r"\.mlp\.fc1\.", ".ffn.expand."),
    (r"\.mlp\.dwconv\.dwconv\.", ".ffn.depthwise."),
    (r"\.mlp\.fc2\.", ".ffn.contract."),
    (r"^decode_head\.linear_projections\.(\d)\.proj\.", r"decoder.projections.\1."),
    (r"^decode_head\.linear_fuse\.", "decoder.fuse."),
    (r"^decode_head\.batch_norm\.", "decoder.norm."),
    (r"^decode_head\.classifier\.", "decoder.classifier."),
)


def randomize(module: nn.Module) -> None:
    """Give every parameter and buffer a value that a bug in its handling would show, and signals of normal size."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if name.endswith("running_var"):
            tensor.data.uniform_(0.5, 2.0)
        elif tensor.is_floating_point() and tensor.ndim == 1:
            tensor.data.add_(0.2 * torch.randn_like(tensor))
        elif tensor.is_floating_point():
            tensor.data.normal_(std=(tensor[0].numel()) ** -0.5)


def transformers_model(encoder: str, num_classes: int) -> SegformerForSemanticSegmentation:
    size = MIT_SIZES[encoder]
    config = SegformerConfig(
        hidden_sizes=list(size.channels),
        depths=list(size.depths),
        num_attention_heads=list(NUM_HEADS),
        decoder_hidden_size=MIT_SIZES[encoder].decoder_channels,
        num_labels=num_classes,
        drop_path_rate=0.0,
        classifier_dropout_prob=0.0,
    )
    model = SegformerForSemanticSegmentation(config).eval()
    randomize(model)
    return model


def our_state(theirs: SegformerForSemanticSegmentation) -> dict[str, Tensor]:
    state = {}
    for name, tensor in theirs.state_dict().items():
        for pattern, replacement in RENAMES:
            name = re.sub(pattern, replacement, name)
        state[name] = tensor
    for name in [n for n in state if ".k_proj." in n]:
        fused = name.replace(".k_proj.", ".key_value.")
        state[fused] = torch.cat([state.pop(name), state.pop(name.replace(".k_proj.", ".v_proj."))])
    state["decoder.fuse.weight"] = state["decoder.fuse.weight"].flatten(1)
    return state


def twins(encoder: str, num_classes: int = 19) -> tuple[SegformerForSemanticSegmentation, Segmenter]:
    """The same function twice: transformers' model, and ours with its weights and its LayerNorm eps."""
    torch.manual_seed(0)
    theirs = transformers_model(encoder, num_classes)
    ours = build_model(
        encoder, num_classes=num_classes, norm_eps=1e-5, embed_norm_eps=1e-5, drop_path=0.0, dropout=0.0
    ).eval()
    ours.load_state_dict(our_state(theirs))
    return theirs, ours


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()

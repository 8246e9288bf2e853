"""The authors' checkpoints: {"meta": {CLASSES, PALETTE, ...}, "state_dict": ...}, or a bare encoder."""

import torch
from torch import Tensor

from segformer.checkpoints.key_table import Layout, Row, State, with_prefix, write

ENCODER_ROWS = (
    Row("encoder.stages.{i}.embed.project", "patch_embed{I}.proj"),
    Row("encoder.stages.{i}.embed.norm", "patch_embed{I}.norm"),
    Row("encoder.stages.{i}.blocks.{j}.norm1", "block{I}.{j}.norm1"),
    Row("encoder.stages.{i}.blocks.{j}.attention.query", "block{I}.{j}.attn.q"),
    Row("encoder.stages.{i}.blocks.{j}.attention.key_value", "block{I}.{j}.attn.kv"),
    Row("encoder.stages.{i}.blocks.{j}.attention.output", "block{I}.{j}.attn.proj"),
    Row("encoder.stages.{i}.blocks.{j}.attention.reduce", "block{I}.{j}.attn.sr"),
    Row("encoder.stages.{i}.blocks.{j}.attention.norm", "block{I}.{j}.attn.norm"),
    Row("encoder.stages.{i}.blocks.{j}.norm2", "block{I}.{j}.norm2"),
    Row("encoder.stages.{i}.blocks.{j}.ffn.expand", "block{I}.{j}.mlp.fc1"),
    Row("encoder.stages.{i}.blocks.{j}.ffn.depthwise", "block{I}.{j}.mlp.dwconv.dwconv"),
    Row("encoder.stages.{i}.blocks.{j}.ffn.contract", "block{I}.{j}.mlp.fc2"),
    Row("encoder.stages.{i}.norm", "norm{I}"),
)
DECODER_ROWS = (
    Row("decoder.projections.{i}", "decode_head.linear_c{I}.proj"),
    Row("decoder.fuse", "decode_head.linear_fuse.conv", as_convolution=True),
    Row("decoder.norm", "decode_head.linear_fuse.bn"),
    Row("decoder.classifier", "decode_head.linear_pred"),
)
UNUSED = {r"decode_head\.conv_seg\..*": "created but never used by that head"}

NVLABS = Layout(
    name="NVlabs (segmentation)",
    rows=(*with_prefix(ENCODER_ROWS, "backbone."), *DECODER_ROWS),
    signature=("backbone.patch_embed1.proj.weight", "decode_head.linear_fuse.conv.weight"),
    dropped=UNUSED,
)
NVLABS_ENCODER = Layout(
    name="NVlabs (encoder)",
    rows=ENCODER_ROWS,
    signature=("patch_embed1.proj.weight", "block1.0.attn.q.weight"),
    dropped={r"head\.(weight|bias)": "classifier that it was pre-trained with"},
)


def write_nvlabs(state: State, num_classes: int) -> dict[str, Tensor]:
    """Return exactly the keys of the authors' checkpoints, the unused ``conv_seg`` (zeros) included."""
    unused = {"weight": torch.zeros(num_classes, 128, 1, 1), "bias": torch.zeros(num_classes)}
    return {f"decode_head.conv_seg.{name}": tensor for name, tensor in unused.items()} | write(NVLABS, state)

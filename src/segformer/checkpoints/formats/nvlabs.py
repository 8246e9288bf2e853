"""The authors' format (NVlabs): {"meta": {CLASSES, PALETTE, ...}, "state_dict": ...}, or only encoder tensors."""

import io
from pathlib import Path

import torch

from segformer.checkpoints.format import Format
from segformer.checkpoints.key_table import KeyTable, Row, State, with_prefix, write
from segformer.config import ModelCard
from segformer.files import write_bytes

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
SEGMENTATION = KeyTable(
    name="NVlabs (segmentation)",
    rows=(*with_prefix(ENCODER_ROWS, "backbone."), *DECODER_ROWS),
    signature=("backbone.patch_embed1.proj.weight", "decode_head.linear_fuse.conv.weight"),
    dropped={r"decode_head\.conv_seg\..*": "created but never used by the authors' decoder"},
)
ENCODER = KeyTable(
    name="NVlabs (encoder)",
    rows=(*ENCODER_ROWS, Row("head", "head")),
    signature=("patch_embed1.proj.weight", "block1.0.attn.q.weight"),
    dropped={r"head\.(weight|bias)": "the classifier that was used for pre-training"},
)


def write_nvlabs(state: State, card: ModelCard, folder: Path) -> None:
    """Write ``model.pth``: {"meta": {CLASSES, PALETTE}, "state_dict"} with exactly the tensor names of the release.

    The released checkpoints also contain a layer ``conv_seg`` that the decoder never uses; its tensors are all written
    as zeros.
    """
    num_classes = len(card.classes)
    unused = {"weight": torch.zeros(num_classes, 128, 1, 1), "bias": torch.zeros(num_classes)}
    tensors = {f"decode_head.conv_seg.{name}": tensor for name, tensor in unused.items()} | write(SEGMENTATION, state)
    meta = {"CLASSES": list(card.classes), "PALETTE": [list(color) for color in card.palette]}
    buffer = io.BytesIO()
    torch.save({"meta": meta, "state_dict": tensors}, buffer)
    write_bytes(folder / "model.pth", buffer.getvalue())


NVLABS = Format(tables=(SEGMENTATION, ENCODER), write=write_nvlabs)

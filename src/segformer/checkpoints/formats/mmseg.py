"""The format of mmsegmentation.  Only encoders can be read: the decoder of mmsegmentation computes another function."""

from segformer.checkpoints.format import Format
from segformer.checkpoints.key_table import KeyTable, Row, with_prefix

BLOCK = "layers.{i}.1.{j}."
ENCODER_ROWS = (
    Row("encoder.stages.{i}.embed.project", "layers.{i}.0.projection"),
    Row("encoder.stages.{i}.embed.norm", "layers.{i}.0.norm"),
    Row("encoder.stages.{i}.blocks.{j}.norm1", BLOCK + "norm1"),
    Row(
        ("encoder.stages.{i}.blocks.{j}.attention.query", "encoder.stages.{i}.blocks.{j}.attention.key_value"),
        BLOCK + "attn.attn.in_proj_{s}",
    ),
    Row("encoder.stages.{i}.blocks.{j}.attention.output", BLOCK + "attn.attn.out_proj"),
    Row("encoder.stages.{i}.blocks.{j}.attention.reduce", BLOCK + "attn.sr"),
    Row("encoder.stages.{i}.blocks.{j}.attention.norm", BLOCK + "attn.norm"),
    Row("encoder.stages.{i}.blocks.{j}.norm2", BLOCK + "norm2"),
    Row("encoder.stages.{i}.blocks.{j}.ffn.expand", BLOCK + "ffn.layers.0", as_convolution=True),
    Row("encoder.stages.{i}.blocks.{j}.ffn.depthwise", BLOCK + "ffn.layers.1"),
    Row("encoder.stages.{i}.blocks.{j}.ffn.contract", BLOCK + "ffn.layers.4", as_convolution=True),
    Row("encoder.stages.{i}.norm", "layers.{i}.2"),
)
ENCODER = KeyTable(
    name="mmsegmentation (encoder)",
    rows=with_prefix(ENCODER_ROWS, "backbone."),
    signature=("backbone.layers.0.0.projection.weight", "backbone.layers.0.1.0.attn.attn.in_proj_weight"),
    dropped={
        r"decode_head\..*": "mmsegmentation's decoder computes a different function",
        r"auxiliary_head\..*": "used in training only",
    },
    embed_norm_eps=1e-6,
)
BARE_ENCODER = KeyTable(
    name="mmsegmentation (bare encoder)",
    rows=ENCODER_ROWS,
    signature=("layers.0.0.projection.weight", "layers.0.1.0.attn.attn.in_proj_weight"),
    embed_norm_eps=1e-6,
)
MMSEG = Format(tables=(ENCODER, BARE_ENCODER))

"""segmentation-models-pytorch: the authors' encoder names, a decoder counted from the last stage."""

from segformer.checkpoints.formats.nvlabs import ENCODER_ROWS
from segformer.checkpoints.key_table import Layout, Row, with_prefix

SMP = Layout(
    name="segmentation-models-pytorch",
    rows=(
        *with_prefix(ENCODER_ROWS, "encoder."),
        Row("decoder.projections.{i}", "decoder.mlp_stage.{R}.linear"),
        Row("decoder.fuse", "decoder.fuse_stage.0", as_convolution=True),
        Row("decoder.norm", "decoder.fuse_stage.1"),
        Row("decoder.classifier", "segmentation_head.0"),
    ),
    signature=("encoder.patch_embed1.proj.weight", "decoder.mlp_stage.0.linear.weight", "segmentation_head.0.weight"),
    align_corners=True,
)

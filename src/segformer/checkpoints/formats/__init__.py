"""The table of other projects' checkpoint formats, with one row for each name that ``convert --to`` accepts."""

from segformer.checkpoints.format import Format
from segformer.checkpoints.formats.mmseg import MMSEG
from segformer.checkpoints.formats.nvlabs import NVLABS
from segformer.checkpoints.formats.smp import SMP
from segformer.checkpoints.formats.tao import TAO
from segformer.checkpoints.formats.transformers import TRANSFORMERS

FORMATS: dict[str, Format] = {
    "hf": TRANSFORMERS,
    "smp": SMP,
    "nvlabs": NVLABS,
    "tao": TAO,
    "mmseg": MMSEG,
}

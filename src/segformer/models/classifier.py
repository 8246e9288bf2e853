"""An image classifier made of an encoder and a linear layer; encoders are pre-trained in this form (Sec. 4.1)."""

from torch import Tensor, nn

from segformer.errors import UserError
from segformer.models.build import model_config
from segformer.models.encoders import ENCODERS
from segformer.models.interfaces import Encoder
from segformer.models.layers import init_weights
from segformer.validation import check_choice


class Classifier(nn.Module):
    """An encoder, and a linear layer on the mean of the last map.  Normalized images (B, C, H, W) -> logits (B, K)"""

    def __init__(self, encoder: Encoder, num_classes: int = 1000) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.channels[-1], num_classes)
        init_weights(self.head)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits of normalized images, which must be at least as high and wide as the largest stride."""
        return self.head(self.encoder(images)[-1].mean(dim=(2, 3)))  # type: ignore[no-any-return]  # nn.Module is untyped


def build_classifier(encoder: str = "mit_b0", num_classes: int = 1000, drop_path: float = 0.1) -> Classifier:
    """Return a randomly initialized classifier.

    >>> import torch
    >>> build_classifier("mit_b0")(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 1000])
    """
    check_choice("encoder", encoder, ENCODERS)
    if num_classes < 1:
        raise UserError(f"num_classes must be at least 1, got {num_classes}")
    return Classifier(ENCODERS[encoder].build(model_config(encoder, drop_path=drop_path)), num_classes)

"""HaS: Hide-and-Seek, patches of the training images are hidden at random.

Hide-and-Seek: Forcing a Network to be Meticulous for Weakly-supervised Object and Action Localization,
Singh & Lee, ICCV 2017, https://arxiv.org/abs/1704.04232. Each image is cut into S x S patches and each patch
is hidden with probability p (section 3.1), so that the network must use other parts than the most
discriminative one. Hidden pixels take the mean colour of the data set: 0 after normalisation. Test images are
left whole. The authors' "mixed" setting draws S for each image from {0, 16, 32, 44, 56} pixels of 224, where 0
hides nothing, with p = 0.5.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from baselines.cam import CAM
from eil.backbones import Backbone
from eil.methods.base import Targets

PUBLISHED_SIDE = 224  # input size of the published patch sizes


def hide_patches(images: Tensor, sizes: Tensor, draws: Tensor, drop_rate: float) -> Tensor:
    """Set whole patches of each image to 0.

    Args:
        images: (B, 3, H, W), normalised.
        sizes: side of each image's patches in pixels, 0 to leave it whole, (B,) int64. The last patch of a row
            or a column is cut off at the border.
        draws: a number in [0, 1) for each patch, (B, rows, columns); images with fewer patches use the first ones.
        drop_rate: patches with a lower number are hidden.

    Returns:
        (B, 3, H, W).
    """
    side = sizes.clamp(min=1)[:, None]  # (B, 1)
    rows = torch.arange(images.shape[2], device=images.device) // side  # (B, H): the patch of each row of pixels
    columns = torch.arange(images.shape[3], device=images.device) // side  # (B, W)
    # An image that is left whole has no patches.
    rows, columns = rows.where(sizes[:, None] > 0, 0), columns.where(sizes[:, None] > 0, 0)
    image = torch.arange(len(images), device=images.device)[:, None, None]
    hidden = draws[image, rows[:, :, None], columns[:, None, :]] < drop_rate  # (B, H, W)
    hidden = hidden & (sizes > 0)[:, None, None]
    return images * ~hidden[:, None]  # a product keeps the images' memory layout


class HaS(CAM):
    """Hide-and-Seek: CAM on images with hidden patches.

    Args:
        backbone: any.
        num_classes: C.
        sizes: sides of patches in pixels, of which one is drawn for each image; 0 hides nothing. Default: the
            authors' {0, 16, 32, 44, 56}. For other inputs than 224 pixels see ``relative``.
        drop_rate: probability that a patch is hidden.
        relative: take ``sizes`` as pixels of a 224-pixel image, scaled to the longer side of the input.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        sizes: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0, 16, 32, 44, 56),
        drop_rate: Annotated[float, Field(ge=0, le=1)] = 0.5,
        relative: bool = True,
    ) -> None:
        super().__init__(backbone, num_classes)
        self.sizes, self.drop_rate, self.relative = tuple(sizes), drop_rate, relative

    def augment(self, images: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        """Hide patches, (B, 3, H, W) -> (B, 3, H, W); labels and masks stay."""
        height, width = images.shape[2:]
        scale = max(height, width) / PUBLISHED_SIDE if self.relative else 1.0
        sizes = [max(round(size * scale), 1) if size else 0 for size in self.sizes]
        smallest = min([size for size in sizes if size], default=max(height, width))
        choice = torch.randint(len(sizes), (len(images),), device=images.device)
        draws = torch.rand(len(images), -(-height // smallest), -(-width // smallest), device=images.device)
        return hide_patches(images, torch.tensor(sizes, device=images.device)[choice], draws, self.drop_rate), targets

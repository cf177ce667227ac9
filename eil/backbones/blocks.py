"""What the two small networks share: their initialisation."""

from torch import nn

from eil.backbones.base import Backbone


def he_initialised(backbone: Backbone) -> Backbone:
    """Initialise every convolution in place (He et al., ICCV 2015)."""
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return backbone

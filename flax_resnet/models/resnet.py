"""One ResNet for the whole design space of the paper's Figure 4(a)."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from flax_resnet.models.blocks import BLOCKS
from flax_resnet.models.designs import Design
from flax_resnet.models.layers import AvgPool, Convolve, Images, InitName, Layers, TilePool
from flax_resnet.models.norm import Dtype
from flax_resnet.models.pooled_conv import PooledConv
from flax_resnet.models.squeeze_excitation import SqueezeExcitation
from flax_resnet.models.stems import STEMS
from flax_resnet.models.stochastic_depth import drop_rates


class ResNet(nn.Module):
    """Stem, stages of residual blocks, pool, linear layer (Figures 3 and 4(a)).

    Attributes:
      design: the architecture.
      num_classes: number of logits.
      weight_init: initial weights: 'pytorch' (PyTorch's defaults, the paper's), 'he_normal' or
        'dirac'.
      dtype: dtype of the computation up to the last block.
      param_dtype: dtype of parameters, BatchNorm statistics, last pool and linear layer.
      axis_name: mapped axis over which BatchNorm shares its statistics; None: the local batch.
      convolve: what computes convolutions, in place of jax.lax.conv_general_dilated.
    """

    design: Design
    num_classes: int
    weight_init: InitName = "pytorch"
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32
    axis_name: str | None = None
    convolve: Convolve = None

    @nn.compact
    def __call__(self, images: Images, train: bool = False) -> Float[Array, "batch classes"]:
        """Normalized images to logits; with `train`, `batch_stats` must be mutable."""
        design, layers = self.design, self._layers()
        x = STEMS[design.stem](layers, design.stem_channels, images.astype(self.dtype), train)
        if design.squeeze_excitation == "stem":
            x = SqueezeExcitation(layers, name="stem_se")(x)
        rates = drop_rates(design.stochastic_depth, design.stage_sizes)
        for stage, num_blocks in enumerate(design.stage_sizes):
            if design.downsample == "pool":
                features, kernel_size = design.stage_channels[stage], design.kernel_sizes[stage]
                name = f"stage{stage + 1}_entry"
                x = PooledConv(features, kernel_size, layers, name=name)(x, train)
            for index in range(num_blocks):
                strides = 2 if design.downsample == "stride" and stage > 0 and index == 0 else 1
                name = f"stage{stage + 1}_block{index + 1}"
                block = BLOCKS[design.block]
                rate = rates[stage][index]
                x = block(design, stage, strides, layers, rate, name=name)(x, train)
        pool = TilePool if design.head_pool == "max" else AvgPool
        x = pool(design.pool_size, name="head_pool")(x.astype(self.param_dtype))
        x = x.reshape(x.shape[0], -1)
        head = layers.linear(
            self.num_classes, fan_in=x.shape[-1], bias=design.head_bias, name="head"
        )
        logits = head(x)
        return logits if design.logit_scale == 1 else design.logit_scale * logits

    def _layers(self) -> Layers:
        design = self.design
        return Layers(
            self.weight_init,
            self.dtype,
            self.param_dtype,
            self.axis_name,
            self.convolve,
            activation=design.activation,
            norm_scale=design.norm_scale,
            norm_momentum=design.norm_momentum,
            norm_epsilon=design.norm_epsilon,
        )

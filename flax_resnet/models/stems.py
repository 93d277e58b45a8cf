"""What stands before the first stage. Functions: their layers are the network's own."""

from flax import linen as nn

from flax_resnet.models.layers import Images, Layers, MaxPool, NewImages


def cifar(layers: Layers, channels: int, images: Images, train: bool) -> NewImages:
    """3x3 at stride 1: keeps the image size."""
    x = layers.conv(channels, 3, name="stem_conv")(images)
    return nn.relu(layers.norm(name="stem_norm")(x, train))


def imagenet(layers: Layers, channels: int, images: Images, train: bool) -> NewImages:
    """7x7 at stride 2, then a 3x3 max pool at stride 2 (He et al. 2016, table 1)."""
    x = layers.conv(channels, 7, 2, name="stem_conv")(images)
    x = nn.relu(layers.norm(name="stem_norm")(x, train))
    return MaxPool(name="stem_pool")(x)


STEMS = {"cifar": cifar, "imagenet": imagenet}

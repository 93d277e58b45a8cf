"""Published answers to the paper's task: the best CIFAR-10 accuracy within 5,000,000 parameters."""

import dataclasses

from flax_resnet.models.cost import Cost, ImageShape, count
from flax_resnet.models.resnet import Design
from flax_resnet.search.space import CIFAR_CLASSES, CIFAR_SHAPE, PAPER_DESIGN


@dataclasses.dataclass(frozen=True)
class Published:
    """A result whose network is public.

    Attributes:
      name: who, with the source.
      accuracy: on CIFAR-10's test images, 0-1, as published.
      design: the network, as far as Figure 4(a) describes it.
      extra: parameters and multiply-adds of the rest.
    """

    name: str
    accuracy: float
    design: Design
    extra: Cost = Cost(0, 0)

    @property
    def cost(self) -> Cost:
        """Of the whole network, for a CIFAR-10 image."""
        return count(self.design, CIFAR_CLASSES, CIFAR_SHAPE) + self.extra


PUBLISHED = (
    # The last epoch of the authors' log, runs/paper_run.csv.
    Published("the paper", 0.9084, PAPER_DESIGN),
    # With squeeze-and-excitation after the stem (Hu et al. 2018, section 3): 64 channels to 4 and
    # back, two linear layers with bias.
    Published(
        "Efficient ResNets (arXiv 2306.12100)",
        0.9604,
        Design((4, 4, 3), (64, 128, 256), (3, 3, 3), (1, 1, 1), None),
        Cost(params=64 * 4 + 4 + 4 * 64 + 64, multiply_adds=2 * 64 * 4),
    ),
)


def published_for(num_classes: int, image_shape: ImageShape) -> tuple[Published, ...]:
    """PUBLISHED for CIFAR-10's classes and image shape, none for others."""
    return PUBLISHED if (num_classes, image_shape) == (CIFAR_CLASSES, CIFAR_SHAPE) else ()

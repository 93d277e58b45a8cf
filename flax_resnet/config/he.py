"""He's recipes, which the configs of his networks start from (He et al. 2016, arXiv 1512.03385)."""

from ml_collections import ConfigDict

from flax_resnet.config.load import default_config


def cifar(model: str) -> ConfigDict:
    """Section 4.2: SGD with momentum, 64k iterations of 128 (164 epochs), drops at 32k and 48k.

    The drops are fractions of the run, so that num_epochs alone shortens it.
    """
    config = _common(model)
    config.num_epochs = 164
    config.batch_size = 128
    config.schedule = "step"
    config.step_boundaries = (0.5, 0.75)
    return config


def imagenet(model: str) -> ConfigDict:
    """Section 3.4: SGD with momentum, batch 256, 90 epochs.

    The paper says up to 60 x 10^4 iterations (120 epochs), with drops when the error plateaus; 90
    epochs with drops at 30 and 60 is how it is usually run.
    """
    config = _common(model)
    config.dataset = "imagenet2012"
    config.image_size = 224
    config.mean = (0.485, 0.456, 0.406)  # of ImageNet's training images, as torchvision has them
    config.std = (0.229, 0.224, 0.225)
    # He crops 224 out of sides of 256 to 480; crops of any area are how it is usually run since.
    config.crop_padding = 0
    config.resized_crop = 0.08
    config.eval_crop = 0.875  # 224 of 256
    config.num_epochs = 90
    config.batch_size = 256
    config.eval_batch_size = 100
    config.schedule = "step"
    config.step_boundaries = (1 / 3, 2 / 3)
    return config


def _common(model: str) -> ConfigDict:
    config = default_config()
    config.model = model
    config.weight_init = "he_normal"
    config.optimizer = "momentum"
    config.learning_rate = 0.1
    config.momentum = 0.9
    config.weight_decay = 1e-4
    return config

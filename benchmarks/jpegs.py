"""A folder of JPEGs with the sizes of ImageNet's, made of enlarged small images and noise.

Half of ImageNet's images are 500 x 375, and one takes about 110 kB. Small images alone would
compress to a tenth of that and decode faster, so noise stands in for texture.
"""

import concurrent.futures
import io
from pathlib import Path

import numpy as np
from PIL import Image

from flax_resnet.data.dataset import Dataset
from flax_resnet.process.machine import usable_cores

SIZES = ((500, 375), (375, 500), (500, 333), (400, 300), (640, 480), (1024, 768))  # width, height
SHARES = (0.52, 0.18, 0.15, 0.05, 0.07, 0.03)
NOISE, QUALITY = 30.0, 95  # these give 110 kB


def encode(image: np.ndarray, seed: int) -> bytes:
    """A JPEG of a small image, uint8 [h, w, 3], at one of the SIZES, with noise of this seed."""
    rng = np.random.RandomState(seed)
    size = SIZES[rng.choice(len(SIZES), p=SHARES)]
    large = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC), np.float32)
    coarse = rng.standard_normal((size[1] // 2, size[0] // 2)).astype(np.float32) * NOISE
    noise = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
    noisy = np.clip(large + noise[..., None], 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noisy).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def make_images(dataset: Dataset, folder: Path, train: int, test: int) -> None:
    """Writes `train` and `test` JPEGs below train/CLASS/ and test/CLASS/, unless they are there."""
    splits = (
        ("train", train, dataset.train_images[:], dataset.train_labels),
        ("test", test, dataset.test_images[:], dataset.test_labels),
    )
    with concurrent.futures.ThreadPoolExecutor(usable_cores()) as pool:
        for split, count, images, labels in splits:

            def write(
                i: int, split: str = split, images: np.ndarray = images, labels: np.ndarray = labels
            ) -> None:
                name = dataset.class_names[labels[i % len(labels)]]
                place = folder / split / name / f"{i:06}.jpg"
                if not place.exists():
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(encode(images[i % len(images)], i))

            list(pool.map(write, range(count)))

"""The program's own reductions under jit against NumPy in float64, at the shapes it runs.

jaxlib 0.10.2 silently computes some fused reductions wrong on a CPU (jax issue 39103): for the last
of 32,769 rows (i, 0, 0), `jit(vmap(lambda r: sum((eye(3) @ r) ** 2)))` gives 1071645696 in place of
1073741824; 0.12.0 is right. The program has no such reduction of a product over rows, and those
that it has are right with both versions: so there is no guard. The flag that avoids the fault,
--xla_cpu_experimental_ynn_fusion_type=-reduce, would make the gradients of the revised network less
accurate: a median of 2.0e-6 from float64, with it off 0.9e-6, as with 0.12.0.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnet.engine.losses import cross_entropy, is_correct
from flax_resnet.engine.state import MetricSums
from flax_resnet.engine.steps import make_eval_step
from flax_resnet.models.layers import BatchNorm

# Of the revised network at batch 128: the images in each stage; the last short batch has 80.
STAGES = [(128, 32, 32, 64), (128, 16, 16, 128), (128, 8, 8, 256), (128, 4, 4, 512)]
SHORT = [(80, 32, 32, 64), (80, 4, 4, 512)]
EPSILON = 1e-5  # BatchNorm's


def draw(shape: tuple[int, ...], seed: int = 0, mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32) + np.float32(mean)


def assert_close(got: Any, expected: Any, bound: float, scale: Any = None) -> None:
    """Within `bound` of `scale`: of what is summed, which may cancel; default: the largest."""
    error = np.abs(np.asarray(got, np.float64) - expected)
    worst = float((error / (np.abs(expected).max() if scale is None else scale)).max())
    assert worst < bound, f"{worst:.1e} from the float64 reference"


@pytest.mark.parametrize("shape", STAGES + SHORT, ids=str)
def test_batch_norm(shape):
    """Statistics, images and the written-out gradients."""
    x, dy = draw(shape, 0, mean=0.5), draw(shape, 1, mean=0.5)
    channels = shape[-1]
    scale, bias = draw((channels,), 2, mean=1.0), draw((channels,), 3)

    @jax.jit
    def both(x: Any, params: Any, dy: Any) -> Any:
        def normalize(x: Any, params: Any) -> Any:
            start = {"mean": jnp.zeros(channels), "var": jnp.zeros(channels)}
            variables = {"params": params, "batch_stats": start}
            return BatchNorm(momentum=0.0).apply(variables, x, True, mutable=["batch_stats"])

        y, pull, updates = jax.vjp(normalize, x, params, has_aux=True)
        return y, updates["batch_stats"], *pull(dy)

    y, stats, dx, dparams = both(x, {"scale": scale, "bias": bias}, dy)
    x, dy = x.astype(np.float64), dy.astype(np.float64)
    axes, count = (0, 1, 2), x.size // channels
    x_mean, x_var = x.mean(axes), x.var(axes)
    inverse_std = 1 / np.sqrt(x_var + EPSILON)
    normal = (x - x_mean) * inverse_std
    assert_close(stats["mean"], x_mean, 1e-5)
    assert_close(stats["var"], x_var * count / (count - 1), 1e-5)
    assert_close(y, normal * scale + bias, 1e-5)
    assert_close(dparams["bias"], dy.sum(axes), 1e-5, np.abs(dy).sum(axes))
    assert_close(dparams["scale"], (dy * normal).sum(axes), 1e-5, np.abs(dy * normal).sum(axes))
    means = dy.sum(axes) / count, (dy * normal).sum(axes) / count
    assert_close(dx, (dy - means[0] - normal * means[1]) * scale * inverse_std, 1e-5)


@pytest.mark.parametrize("size", [128, 80])
def test_loss_head_and_pool(size):
    """The loss, and its gradients for the head's kernel and bias and for the last images."""
    images, kernel = draw((size, 4, 4, 512)), draw((512, 10), 1) / np.float32(512**0.5)
    labels = np.random.default_rng(2).integers(0, 10, size, dtype=np.int32)

    def loss_of(images: Any, kernel: Any, bias: Any) -> Any:
        logits = images.mean((1, 2)) @ kernel + bias
        return cross_entropy(logits, jnp.asarray(labels)).mean()

    bias = np.zeros(10, np.float32)
    loss, grads = jax.jit(jax.value_and_grad(loss_of, argnums=(0, 1, 2)))(images, kernel, bias)
    features = images.astype(np.float64).mean((1, 2))
    logits = features @ kernel.astype(np.float64)
    log_softmax = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    assert_close(loss, -log_softmax[np.arange(size), labels].mean(), 1e-6)
    dlogits = (np.exp(log_softmax) - np.eye(10)[labels]) / size
    dfeatures = dlogits @ kernel.astype(np.float64).T / 16
    assert_close(grads[0], np.broadcast_to(dfeatures[:, None, None], images.shape), 1e-5)
    assert_close(grads[1], features.T @ dlogits, 1e-5)
    assert_close(grads[2], dlogits.sum(0), 1e-5)


@pytest.mark.parametrize(("steps", "size"), [(20, 500), (1, 10_000)])
def test_sums_of_an_evaluation_of_10_000_images(steps, size):
    """500 images a step, as configured, and all at once; the last 300 are padding."""
    logits = 3 * draw((steps * size, 10))
    labels = np.random.default_rng(1).integers(0, 10, steps * size, dtype=np.int32)
    mask = np.arange(steps * size) < 9_700
    images = np.zeros((size, 1, 1, 3), np.uint8)
    # The network: logits given as variables.
    step = jax.jit(make_eval_step(lambda variables, _: variables))
    sums = MetricSums.zeros()
    for part in np.split(np.arange(steps * size), steps):
        sums, _ = step(logits[part], sums, (images, labels[part], mask[part]))
    wide = logits.astype(np.float64)
    losses = np.log(np.exp(wide).sum(-1)) - wide[np.arange(len(wide)), labels]
    assert_close(sums.loss, losses[mask].sum(), 1e-5)
    assert int(sums.correct) == ((wide.argmax(-1) == labels) & mask).sum()
    assert int(sums.images) == 9_700 and int(sums.batches) == steps


@pytest.mark.parametrize(("size", "channels", "side"), [(128, 64, 32), (128, 512, 4)])
def test_kernel_gradient_of_a_1x1_convolution_sums_every_pixel(size, channels, side):
    """131,072 pixels in the first stage, 2,048 in the last."""
    x, dy = draw((size, side, side, channels), 0, mean=0.5), draw((size, side, side, 64), 1, 0.5)

    @jax.jit
    def kernel_gradient(x: Any, dy: Any) -> Any:
        def convolve(kernel: Any) -> Any:
            layout = ("NHWC", "HWIO", "NHWC")
            return jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "VALID", dimension_numbers=layout
            )

        return jax.vjp(convolve, jnp.zeros((1, 1, channels, 64)))[1](dy)[0]

    got = kernel_gradient(x, dy)
    flat_x, flat_dy = (a.reshape(-1, a.shape[-1]).astype(np.float64) for a in (x, dy))
    # Added one by one, rounding errors grow as the root of their number.
    assert_close(got[0, 0], flat_x.T @ flat_dy, len(flat_x) ** 0.5 * np.finfo(np.float32).eps)


@pytest.mark.parametrize("soft", [False, True])
def test_correct_images_are_counted_exactly(soft):
    logits = draw((10_000, 10))
    labels = np.random.default_rng(1).integers(0, 10, 10_000, dtype=np.int32)
    given = np.eye(10, dtype=np.float32)[labels] if soft else labels
    count = jax.jit(lambda a, b: is_correct(a, b).sum(dtype=jnp.int32))(logits, given)
    assert int(count) == (logits.argmax(-1) == labels).sum()

"""The pool of ImageNet's stem against linen's, with ties: after ReLU windows have several zeros."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from flax_resnet.models.max_pool import max3x3


def of_linen(x: jax.Array) -> jax.Array:
    padding: Any = ((1, 1), (1, 1))  # linen declares only its names for paddings
    return nn.max_pool(x, (3, 3), (2, 2), padding)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("sides", [(8, 8), (7, 8), (9, 6), (1, 2)], ids=str)
def test_values_and_gradients_are_linens(sides, dtype):
    x = jax.nn.relu(jax.random.normal(jax.random.key(0), (3, *sides, 4), dtype))
    (ours, gradient), (theirs, known) = (jax.vjp(f, x) for f in (max3x3, of_linen))
    assert ours.dtype == x.dtype
    np.testing.assert_array_equal(ours, theirs)
    dy = jax.random.normal(jax.random.key(1), ours.shape).astype(dtype)
    (dx,), (expected_dx,) = gradient(dy), known(dy)
    assert dx.dtype == x.dtype
    # A pixel is in up to 4 windows, whose gradients linen adds up in 16 bits.
    bound = 1e-6 if dtype == "float32" else 2e-2
    difference = jnp.abs(dx.astype(jnp.float32) - expected_dx.astype(jnp.float32)).max()
    assert difference <= bound * jnp.abs(dy).max()


def test_not_a_number_stays():
    x = jnp.ones((1, 4, 4, 1)).at[0, 0, 0, 0].set(jnp.nan)
    np.testing.assert_array_equal(jnp.isnan(max3x3(x))[0, :, :, 0], [[True, False], [False] * 2])

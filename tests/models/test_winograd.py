"""Each transform alone, then the convolution against the native one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnet.models.cpu import winograd

SHAPE = (2, 8, 12, 5)


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def normal_grid(seed: int, *shape: int) -> winograd.Grid:
    return list(normal(seed, 6, 6, *shape))


def inner(left: winograd.Grid | jax.Array, right: winograd.Grid | jax.Array) -> float:
    products = jax.tree.map(lambda a, b: (a * b).sum(), left, right)
    return float(sum(jax.tree.leaves(products)))


def test_the_matrices_compute_a_correlation():
    """Section 4.1: for every d and g, A^T[(Gg) * (B^T d)] is g slid over d."""
    d, g = np.random.default_rng(0).normal(size=(2, 6))
    y = winograd.A_T @ ((winograd.G @ g[:3]) * (winograd.B_T @ d))
    np.testing.assert_allclose(y, np.correlate(d, g[:3]), rtol=1e-12)


def test_the_input_transform_is_that_of_each_window():
    x = normal(0, *SHAPE)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    grid = np.array(winograd.transform_input(x)).reshape(6, 6, 2, 2, 3, 5)
    for row in range(2):
        for column in range(3):
            d = padded[:, 4 * row : 4 * row + 6, 4 * column : 4 * column + 6]
            expected = np.einsum("ia,nabc,jb->ijnc", winograd.B_T, d, winograd.B_T)
            np.testing.assert_allclose(grid[:, :, :, row, column], expected, atol=1e-4)


def test_the_kernel_transform():
    kernel = normal(1, 3, 3, 5, 7)
    expected = np.einsum("ia,abcf,jb->ijcf", winograd.G, kernel, winograd.G)
    np.testing.assert_allclose(np.array(winograd.transform_kernel(kernel)), expected, atol=1e-5)


def test_the_output_transform_puts_tiles_in_their_place():
    m = normal_grid(2, 2 * 2 * 3, 7)
    y = np.asarray(winograd.transform_output(m, SHAPE[:3]))
    tiles = np.array(m).reshape(6, 6, 2, 2, 3, 7)
    expected = np.einsum("ai,ijnrcf,bj->nracbf", winograd.A_T, tiles, winograd.A_T)
    np.testing.assert_allclose(y, expected.reshape(2, 8, 12, 7), atol=1e-4)


def test_each_adjoint_is_the_transpose():
    """<T x, y> = <x, T' y>."""
    x, v = normal(3, *SHAPE), normal_grid(4, 12, 5)
    assert inner(winograd.transform_input(x), v) == pytest.approx(
        inner(x, winograd.transform_input_adjoint(v, SHAPE[:3])), rel=1e-4
    )
    kernel, u = normal(5, 3, 3, 5, 7), normal_grid(6, 5, 7)
    assert inner(winograd.transform_kernel(kernel), u) == pytest.approx(
        inner(kernel, winograd.transform_kernel_adjoint(u)), rel=1e-4
    )
    m, y = normal_grid(7, 12, 7), normal(8, 2, 8, 12, 7)
    assert inner(winograd.transform_output(m, SHAPE[:3]), y) == pytest.approx(
        inner(m, winograd.transform_output_adjoint(y)), rel=1e-4
    )


def test_convolutions_of_a_shape_are_traced_once(monkeypatch):
    traced = []
    transform = winograd.transform_input
    monkeypatch.setattr(winograd, "transform_input", lambda x: traced.append(x) or transform(x))

    def loss(kernels, x):
        for kernel in kernels:
            x = winograd.conv3x3(x, kernel)
        return x.sum()

    jax.jit(jax.grad(loss)).trace([jnp.ones((3, 3, 3, 3))] * 5, jnp.ones((3, 4, 4, 3)))
    assert len(traced) == 1


def test_a_batch_in_chunks_has_the_same_gradients_in_a_tenth_of_the_memory(monkeypatch):
    monkeypatch.setattr(winograd, "CHUNK_TILES", 8)
    monkeypatch.setattr(winograd, "usable_cores", lambda: 2)
    x, kernel, dy = normal(9, 36, 16, 16, 8), normal(10, 3, 3, 8, 16), normal(11, 36, 16, 16, 16)
    assert winograd.num_chunks(x.shape, 16) == 36
    assert winograd.num_chunks((36, 8, 8, 8), 16) == 9
    assert winograd.num_chunks(x.shape, 128) == 1

    def gradients(x, kernel, dy):
        y, vjp = jax.vjp(winograd.conv3x3, x, kernel)
        return y, *vjp(dy)

    chunked = jax.jit(gradients).lower(x, kernel, dy).compile()
    monkeypatch.setattr(winograd, "CHUNK_TILES", 10**6)
    jax.clear_caches()
    at_once = jax.jit(gradients).lower(x, kernel, dy).compile()
    for found, expected in zip(chunked(x, kernel, dy), at_once(x, kernel, dy), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5 * float(abs(expected).max()))
    analyses: list[Any] = [program.memory_analysis() for program in (chunked, at_once)]
    assert analyses[0].temp_size_in_bytes < analyses[1].temp_size_in_bytes / 10
    jax.clear_caches()  # of other functions, too, what was traced with these chunks


def test_a_nan_comes_out():
    x = jnp.zeros((1, 4, 4, 16)).at[0, 0, 0, 0].set(jnp.nan)
    assert jnp.isnan(jax.jit(winograd.conv3x3)(x, jnp.ones((3, 3, 16, 2)))).any()

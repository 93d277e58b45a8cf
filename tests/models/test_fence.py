"""The fence in compiled programs, alone and where the convolutions use it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from flax_resnet.models.cpu import winograd
from flax_resnet.models.cpu.fence import materialize


def conditionals(function: Callable[..., Any], *shapes: tuple[int, ...]) -> int:
    """How many the compiled program has."""
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    program = jax.jit(function).lower(*arguments).compile().as_text()
    assert program is not None
    return program.count(" conditional(")


def test_the_compiled_program_keeps_the_conditional():
    assert conditionals(lambda x: materialize(jnp.sin, x).sum(0), (8, 8)) == 1


def test_the_winograd_convolution_keeps_every_conditional():
    def gradients(x: jax.Array, kernel: jax.Array) -> Any:
        return jax.grad(lambda x, kernel: winograd.conv3x3(x, kernel).max(), (0, 1))(x, kernel)

    # Forward the input's and the output's transform, backward five, one of them the kernel's.
    assert conditionals(gradients, (2, 8, 8, 16), (3, 3, 16, 16)) == 7


def test_a_stage_computes_what_it_did():
    x = jnp.arange(6.0).reshape(2, 3)
    doubled, total = materialize(lambda x: (2 * x, x.sum()), x)
    assert (doubled == 2 * x).all()
    assert total == 15

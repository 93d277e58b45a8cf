"""Muon: steps along the orthogonalized momentum of convolution filters.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks", with the numbers of
airbench94_muon. optax.contrib.muon differs in three ways: its momentum is corrected for its start,
it gives all other parameters to Adam, and it keeps a count and the coefficients in its state.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from flax_resnet.optim.groups import is_frozen, parameter_name

# Of x, x x^T x and (x x^T)^2 x: the steepest at 0 that ends between 0.7 and 1.2 or so.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 3
EPSILON = 5e-11  # airbench94_muon has 1e-7, with a loss that is summed over 2,000 images


def is_filter(parameter: Any) -> bool:
    """Whether a parameter is the kernel of a convolution [height, width, channels, features]."""
    return parameter.ndim == 4


def orthogonalize(
    filters: Float[Array, "height width channels features"],
) -> Float[Array, "height width channels features"]:
    """Sets the singular values of the matrix [height * width * channels, features] to about 1.

    By a Newton-Schulz iteration, which needs matrix products alone.
    """
    matrix = filters.reshape(-1, filters.shape[-1])
    wide = matrix.shape[0] < matrix.shape[1]
    x = matrix if wide else matrix.T  # the smaller of x x^T and x^T x
    x /= jnp.linalg.norm(x) + EPSILON
    a, b, c = COEFFICIENTS
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if wide else x.T).reshape(filters.shape)


def muon(momentum: Any = 0.6) -> optax.GradientTransformation:
    """Muon with Nesterov's momentum, for filters alone, at a learning rate of 1."""
    return optax.chain(
        optax.trace(momentum, nesterov=True),
        optax.stateless(lambda updates, _: jax.tree.map(lambda u: -orthogonalize(u), updates)),
    )


def normalize_filters(params: Any, frozen: Sequence[str] = ()) -> Any:
    """Filters with the norm of an orthogonal matrix, the root of their number; the rest as it is.

    Before each step of Muon, which has no weight decay (as airbench94_muon does). BatchNorm undoes
    any such factor: what it changes is the size of a step beside the weights'.

    Args:
      params: of the network.
      frozen: names of filters to leave alone, as in groups.freeze.
    """

    def normalize(path: tuple[Any, ...], parameter: jax.Array) -> jax.Array:
        if not is_filter(parameter) or is_frozen(parameter_name(path), frozen):
            return parameter
        return parameter * (parameter.shape[-1] ** 0.5 / jnp.linalg.norm(parameter))

    return jax.tree_util.tree_map_with_path(normalize, params)

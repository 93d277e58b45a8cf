"""Loss and accuracy per image, for hard labels and soft ones."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

# Classes, or probabilities of the classes (label smoothing, mixup, CutMix, distillation).
Labels = Int[Array, " batch"] | Float[Array, "batch classes"]


def cross_entropy(logits: Float[Array, "batch classes"], labels: Labels) -> Float[Array, " batch"]:
    """Cross-entropy of each image in nats; linear in soft labels."""
    if jnp.issubdtype(labels.dtype, jnp.integer):
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return optax.softmax_cross_entropy(logits, labels)


def is_correct(logits: Float[Array, "batch classes"], labels: Labels) -> Bool[Array, " batch"]:
    """Whether the largest logit is the label's class; of soft labels the likeliest one's."""
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        labels = labels.argmax(-1)
    return logits.argmax(-1) == labels

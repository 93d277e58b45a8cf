"""Airbench94 against PyTorch: same weights, same batches, same logits, gradients and steps."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flax_resnet.config.build import build_hparams, build_optimizer
from flax_resnet.config.load import load_config
from flax_resnet.engine.losses import cross_entropy
from flax_resnet.engine.mixing import soften
from flax_resnet.engine.state import MetricSums, TrainState
from flax_resnet.engine.steps import make_normalize, make_train_step
from flax_resnet.models.designs import MODELS
from flax_resnet.models.resnet import ResNet
from flax_resnet.models.whitening import set_filters, whitening_filters
from flax_resnet.optim.muon import normalize_filters

torch = pytest.importorskip("torch")
if not torch.__version__.startswith("2.13.0"):
    pytest.skip("the comparison is pinned to torch 2.13.0", allow_module_level=True)

from tests.airbench_twin import AirbenchNet, Optimizers, head_factor, load  # noqa: E402
from tests.torch_twin import torch_state  # noqa: E402

BATCH = 16
DESIGN = MODELS["airbench94"]
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, BATCH, 32, 32, 3), dtype=np.uint8)
LABELS = RNG.integers(0, 10, (3, BATCH), dtype=np.int32)


@pytest.fixture(autouse=True)
def float64_on_one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with jax.enable_x64(True):
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def config() -> Any:
    return load_config("airbench94")


@pytest.fixture
def variables(config: Any) -> dict[str, Any]:
    """Initial weights, with biases and statistics away from 0 and 1."""
    model = network()
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float64)
    shapes: Any = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)
    rng = np.random.default_rng(1)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        bound = np.prod(leaf.shape[:-1]) ** -0.5 if path[-1].key == "kernel" else 0.5
        low, high = (0.2, 2.0) if path[-1].key == "var" else (-bound, bound)
        return jnp.asarray(rng.uniform(low, high, leaf.shape))

    drawn = jax.tree.map_with_path(draw, shapes)
    filters = whitening_filters(IMAGES[0], config.mean, config.std)
    return drawn | {"params": set_filters(drawn["params"], filters)}


def network() -> ResNet:
    return ResNet(DESIGN, 10, dtype=jnp.float64, param_dtype=jnp.float64)


def twin_of(variables: dict[str, Any]) -> AirbenchNet:
    twin = AirbenchNet(DESIGN.stage_channels).double()
    load(variables, twin)
    return twin.train()


def twin_loss(twin: AirbenchNet, config: Any, step: int) -> tuple[Any, Any]:
    """Logits, and the sum of the losses of a batch as large as the recipe's."""
    normalize = make_normalize(config.mean, config.std, jnp.float64)
    pixels = normalize(jnp.asarray(IMAGES[step]))
    logits = twin(torch.tensor(np.array(pixels).transpose(0, 3, 1, 2)))
    loss = torch.nn.functional.cross_entropy(
        logits, torch.tensor(LABELS[step]).long(), label_smoothing=0.2, reduction="sum"
    )
    return logits, loss * config.batch_size / BATCH


def assert_same(ours: dict[str, Any], theirs: dict[str, Any], tolerance: float) -> None:
    for name, value in torch_state(ours).items():
        difference = (value - theirs[name]).abs().max().item()
        size = theirs[name].abs().max().item()
        assert difference <= tolerance * max(size, 1e-3), f"{name}: {difference:.1e} of {size:.1e}"


def test_logits_and_gradients_are_the_originals(config, variables):
    twin = twin_of(variables)
    logits, loss = twin_loss(twin, config, 0)
    loss.backward()
    model = network()
    normalize = make_normalize(config.mean, config.std, jnp.float64)

    @jax.jit
    def compute(params: Any) -> Any:
        def loss_of(params: Any) -> Any:
            ours, new = model.apply(
                {"params": params, "batch_stats": variables["batch_stats"]},
                normalize(jnp.asarray(IMAGES[0])),
                True,
                mutable=["batch_stats"],
            )
            labels = soften(jnp.asarray(LABELS[0]), 10, 0.2, jnp.float64)
            loss = config.batch_size * cross_entropy(ours, labels).mean()
            return loss, (ours, new["batch_stats"])

        return jax.grad(loss_of, has_aux=True)(params)

    grads, (ours, batch_stats) = compute(variables["params"])
    np.testing.assert_allclose(ours, logits.detach().numpy(), rtol=1e-10, atol=1e-12)
    theirs = {name: p.grad for name, p in twin.named_parameters() if p.grad is not None}
    theirs["head.weight"] *= head_factor(twin)
    assert not np.any(grads["stem_whiten"].pop("kernel"))  # which is not trained
    assert_same({"params": grads, "batch_stats": {}}, theirs, 1e-9)
    assert_same({"params": {}, "batch_stats": batch_stats}, twin.state_dict(), 1e-10)


def test_two_steps_are_the_originals(config, variables):
    twin = twin_of(variables)
    optimizers = Optimizers(twin, config.batch_size)
    optimizer = build_optimizer(config)
    # Of Muon's weights, the whitening filters are none.
    frozen = ("stem_whiten/kernel",)
    train_step = jax.jit(
        make_train_step(
            network(),
            optimizer,
            optax.linear_schedule(1.0, 0.0, 200),
            make_normalize(config.mean, config.std, jnp.float64),
            hparams=build_hparams(config, 25),
            num_classes=10,
            prepare=lambda params: normalize_filters(params, frozen),
        )
    )
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(variables["params"]),
    )
    # 3e-8 apart after a step, as float32's hyperparameters are; that grows tenfold with each.
    for step, tolerance in enumerate((1e-7, 1e-6)):
        sums = MetricSums.zeros(jnp.float64)
        state, sums = train_step(state, sums, (IMAGES[step], LABELS[step]))
        _, loss = twin_loss(twin, config, step)
        assert float(sums.loss) == pytest.approx(loss.item() / config.batch_size, rel=1e-6), step
        twin.zero_grad()
        loss.backward()
        optimizers.step(1 - step / 200)
        theirs = dict(twin.state_dict())
        theirs["head.weight"] = theirs["head.weight"] / head_factor(twin)
        assert_same(dict(state.variables), theirs, tolerance)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), variables["params"], state.params)
    assert not moved["stem_whiten"].pop("kernel") and jax.tree.all(moved)

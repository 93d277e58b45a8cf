"""The same weights and batches through PyTorch: same logits, statistics, losses and updates.

The weights are drawn by numpy, away from BatchNorm's trivial initial values.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flax_resnet.engine.state import MetricSums, TrainState
from flax_resnet.engine.steps import make_normalize, make_train_step
from flax_resnet.models.designs import MODELS
from flax_resnet.models.resnet import Design, ResNet
from flax_resnet.optim.groups import decay_mask
from flax_resnet.optim.optimizers import OPTIMIZERS

torch = pytest.importorskip("torch")
if not torch.__version__.startswith("2.13.0"):
    pytest.skip("the comparison is pinned to torch 2.13.0", allow_module_level=True)

from tests.torch_twin import TorchResNet, copy_weights, torch_state  # noqa: E402

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
IMAGE_SHAPE = (32, 32, 3)
REVISED = MODELS["revised"]
NARROW = dataclasses.replace(REVISED, stage_channels=(8, 16, 32, 64))
SHALLOW = Design((1, 1), (8, 16), (3, 3), (1, 1), pool_size=16)

MakeTorchOptimizer = Callable[[Any], Any]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: faster on images this small, above all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def float64() -> Iterator[None]:
    """JAX arrays may be float64 during the test."""
    with jax.enable_x64(True):
        yield


def in_float64(design: Design) -> ResNet:
    return ResNet(design, num_classes=10, dtype=jnp.float64, param_dtype=jnp.float64)


def make_twin(model: ResNet) -> TorchResNet:
    twin = TorchResNet(model.design, model.num_classes)
    return twin.to(torch.float64 if model.dtype == jnp.float64 else torch.float32)


def random_variables(model: ResNet) -> dict[str, Any]:
    """PyTorch's kernels; BatchNorm scales, biases and statistics away from their initial 0, 1."""
    images = jax.ShapeDtypeStruct((1, *IMAGE_SHAPE), model.dtype)
    shapes: Any = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)
    rng = np.random.default_rng(1)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        bound = np.prod(leaf.shape[:-1]) ** -0.5  # 1 / sqrt(fan-in) of a kernel
        low, high = {
            "kernel": (-bound, bound),
            "scale": (0.5, 1.5),
            "bias": (-0.5, 0.5),
            "mean": (-0.5, 0.5),
            "var": (0.2, 2.0),
        }[path[-1].key]
        return jnp.asarray(rng.uniform(low, high, leaf.shape), leaf.dtype)

    return jax.tree.map_with_path(draw, shapes)


def random_batch(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    images = rng.integers(0, 256, (size, *IMAGE_SHAPE), dtype=np.uint8)
    return images, rng.integers(0, 10, size, dtype=np.int32)


def to_torch(images: np.ndarray, dtype: Any) -> Any:
    """uint8 NHWC to normalized NCHW, the way PyTorch programs do."""
    scaled = torch.tensor(images.transpose(0, 3, 1, 2)).to(dtype) / 255
    mean, std = (torch.tensor(v, dtype=dtype).reshape(1, 3, 1, 1) for v in (MEAN, STD))
    return (scaled - mean) / std


def differences(variables: dict[str, Any], twin: TorchResNet) -> dict[str, float]:
    """Largest absolute difference of each parameter and running statistic, by name."""
    theirs = twin.state_dict()
    return {
        name: (value - theirs[name]).abs().max().item()
        for name, value in torch_state(variables).items()
    }


def assert_same_variables(variables: Any, twin: TorchResNet, tolerance: float) -> None:
    found = differences(variables, twin)
    worst = max(found, key=found.__getitem__)
    assert found[worst] <= tolerance, f"{worst} differs by {found[worst]:.1e}"


def assert_same_forward(model: ResNet, train: bool, tolerance: float) -> None:
    """Logits, and in train mode the running statistics after the pass, agree."""
    variables = random_variables(model)
    twin = make_twin(model)
    copy_weights(variables, twin)
    twin.train(train)
    images, _ = random_batch(np.random.default_rng(3), 16)
    normalize = make_normalize(MEAN, STD, model.dtype)

    @jax.jit
    def forward(variables: Any, images: jax.Array) -> Any:
        return model.apply(variables, normalize(images), train, mutable=["batch_stats"])

    logits, new = forward(variables, images)
    with torch.no_grad():
        twin_logits = twin(to_torch(images, next(twin.parameters()).dtype)).numpy()
    difference = np.abs(logits - twin_logits).max()
    mode = "train" if train else "eval"
    assert difference <= tolerance, f"{mode} mode: logits differ by {difference:.1e}"
    if train:
        old = {"batch_stats": variables["batch_stats"]}
        moved = jax.tree.map(lambda a, b: not np.allclose(a, b), old, new)
        assert jax.tree.all(moved), f"running statistics that did not move: {moved}"
    assert_same_variables(variables | new, twin, tolerance)


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_revised_network_gives_pytorchs_logits_and_statistics(train):
    assert_same_forward(ResNet(REVISED, num_classes=10), train, tolerance=1e-4)


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_forward_in_float64_agrees_to_rounding(float64, train):
    # Two blocks a layer: the identity shortcut of a later block is compared too.
    design = dataclasses.replace(SHALLOW, stage_sizes=(2, 2))
    assert_same_forward(in_float64(design), train, tolerance=1e-11)


@pytest.mark.parametrize(
    "changes",
    [
        {"shortcut": "pad"},
        {"shortcut": "none"},
        {"shortcut_kernels": (3, 3)},
        {"kernel_sizes": (5, 3)},
        {"stem": "imagenet"},
        {"block": "bottleneck"},
        {"block": "bottleneck", "bottleneck_stride": "3x3"},
    ],
    ids=lambda changes: " ".join(map(str, changes.values())),
)
def test_every_kind_of_block_shortcut_and_stem_is_pytorchs(float64, changes):
    design = dataclasses.replace(SHALLOW, stage_sizes=(2, 2), pool_size=None, **changes)
    assert_same_forward(in_float64(design), True, tolerance=1e-11)


def assert_same_training(
    model: ResNet,
    optimizer: optax.GradientTransformation,
    learning_rate: float,
    make_torch_optimizer: MakeTorchOptimizer,
    *,
    num_steps: int,
    loss_tolerance: float,
    variables_tolerance: float,
    batch_size: int = 16,
) -> None:
    """Trains both networks on the same batches: every loss and the last weights agree."""
    variables = random_variables(model)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(variables["params"]),
    )
    schedule, normalize = (
        optax.constant_schedule(learning_rate),
        make_normalize(MEAN, STD, model.dtype),
    )
    train_step = jax.jit(make_train_step(model, optimizer, schedule, normalize))
    twin = make_twin(model)
    copy_weights(variables, twin)
    twin.train()
    torch_optimizer = make_torch_optimizer(twin)
    criterion = torch.nn.CrossEntropyLoss()

    rng = np.random.default_rng(0)
    for step in range(1, num_steps + 1):
        images, labels = random_batch(rng, batch_size)
        state, sums = train_step(state, MetricSums.zeros(model.dtype), (images, labels))
        torch_optimizer.zero_grad()
        logits = twin(to_torch(images, next(twin.parameters()).dtype))
        loss = criterion(logits, torch.tensor(labels, dtype=torch.int64))
        loss.backward()
        torch_optimizer.step()

        ours, theirs = float(sums.loss), loss.item()
        assert abs(ours - theirs) <= loss_tolerance, (
            f"loss of step {step}: {ours:.12f} here, {theirs:.12f} in PyTorch, "
            f"{abs(ours - theirs):.1e} apart"
        )
        right = int((logits.argmax(1).numpy() == labels).sum())
        assert (int(sums.correct), int(sums.images)) == (right, batch_size), (
            f"images right at step {step}"
        )
    assert_same_variables(dict(state.variables), twin, variables_tolerance)


def torch_adam(twin: TorchResNet) -> Any:
    return torch.optim.Adam(twin.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8)


def test_twenty_adam_steps_in_float64_give_pytorchs_losses(float64):
    assert_same_training(
        in_float64(NARROW),
        OPTIMIZERS["adam"](),
        1e-3,
        torch_adam,
        num_steps=20,
        loss_tolerance=1e-8,
        variables_tolerance=1e-7,
    )


@pytest.mark.parametrize(
    ("design", "batch_size"),
    [pytest.param(NARROW, 16, id="narrow"), pytest.param(REVISED, 64, id="full width")],
)
def test_three_adam_steps_in_float32_give_pytorchs_losses(design, batch_size):
    # Adam divides by the gradient's size: where a gradient is all rounding, its weight moves by
    # up to the learning rate either way. So the weights agree to 2 * 3 learning rates only, and
    # the losses drift apart, more with more weights and with fewer images: at full width and 16
    # images both programs are up to 1.4e-3 from the float64 losses by the third step.
    assert_same_training(
        ResNet(design, num_classes=10),
        OPTIMIZERS["adam"](),
        1e-3,
        torch_adam,
        num_steps=3,
        loss_tolerance=1e-3,
        variables_tolerance=6e-3,
        batch_size=batch_size,
    )


def test_three_momentum_steps_in_float32_at_full_width_give_pytorchs_losses():
    assert_same_training(
        ResNet(REVISED, num_classes=10),
        OPTIMIZERS["momentum"](),
        0.01,
        lambda twin: torch.optim.SGD(twin.parameters(), lr=0.01, momentum=0.9),
        num_steps=3,
        loss_tolerance=1e-4,
        variables_tolerance=1e-3,
    )


def decay_groups(twin: TorchResNet) -> list[dict[str, Any]]:
    """Weight decay on kernels, the weights of two and more dimensions, alone."""
    kernels = [p for p in twin.parameters() if p.ndim > 1]
    others = [p for p in twin.parameters() if p.ndim == 1]
    return [{"params": kernels, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]


@pytest.mark.parametrize(
    ("name", "options", "make_torch_optimizer"),
    [
        pytest.param(
            "sgd",
            {"weight_decay": 0.01},
            lambda twin: torch.optim.SGD(twin.parameters(), lr=0.05, weight_decay=0.01),
            id="sgd",
        ),
        pytest.param(
            "momentum",
            {"weight_decay": 0.01},
            lambda twin: torch.optim.SGD(
                twin.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01
            ),
            id="momentum",
        ),
        pytest.param(
            "momentum",
            {"weight_decay": 0.01, "mask": decay_mask},
            lambda twin: torch.optim.SGD(decay_groups(twin), lr=0.05, momentum=0.9),
            id="momentum, decay of kernels alone",
        ),
        pytest.param(
            "nesterov",
            {"weight_decay": 0.01},
            lambda twin: torch.optim.SGD(
                twin.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01, nesterov=True
            ),
            id="nesterov",
        ),
        pytest.param(
            "adamw",
            {"weight_decay": 0.1},
            lambda twin: torch.optim.AdamW(twin.parameters(), lr=0.05, weight_decay=0.1),
            id="adamw",
        ),
    ],
)
def test_five_steps_in_float64_give_pytorchs_losses(float64, name, options, make_torch_optimizer):
    assert_same_training(
        in_float64(SHALLOW),
        OPTIMIZERS[name](**options),
        0.05,
        make_torch_optimizer,
        num_steps=5,
        loss_tolerance=1e-8,
        variables_tolerance=1e-7,
    )

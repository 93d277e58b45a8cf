"""A recipe trained in PyTorch: the same images, batches and augmentation, epoch by epoch.

The paper's recipe, with Adam and PyTorch's own initial weights, or airbench94, with its Muon and
our initial weights; the networks are those of the tests. It writes metrics.jsonl as train.py does,
in a folder that `flax_resnet paper`, `compare` and `plot` read; the same command resumes it.
"""

import argparse
import contextlib
import json
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from ml_collections import ConfigDict

from flax_resnet.config.build import build_model, build_optimizer, build_schedule
from flax_resnet.config.load import design_of, find_config, load_config, to_json
from flax_resnet.data.batches import TrainBatches, eval_chunks, prefetch
from flax_resnet.data.load import load_dataset
from flax_resnet.data.transforms import build_transforms
from flax_resnet.engine.state import init_state
from flax_resnet.engine.views import predict_views
from flax_resnet.models.whitening import set_filters, whitening_filters
from flax_resnet.process.machine import machine
from tests.airbench_twin import AirbenchNet, Optimizers, load
from tests.torch_twin import TorchResNet


class Adam:
    """The paper's network and optimizer."""

    def __init__(self, config: ConfigDict, num_classes: int, device: str) -> None:
        torch.manual_seed(config.seed)
        network: Any = TorchResNet(design_of(config), num_classes).to(device)
        self.network = network.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)

    def step(self, loss: torch.Tensor, lr: float, epoch: int) -> None:
        """One step from the mean loss of a batch."""
        self.network.zero_grad()
        loss.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()

    def state(self) -> Any:
        """What a resumed run needs; `load_state` takes it."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: Any) -> None:
        """Goes on from `state`."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])


class Airbench:
    """Airbench94 and its two optimizers."""

    def __init__(self, config: ConfigDict, images: np.ndarray, device: str) -> None:
        self.config = config
        network: Any = AirbenchNet(design_of(config).stage_channels).to(device)
        self.network = network.to(memory_format=torch.channels_last)
        shape = (images.shape[1], images.shape[2], 3)
        state = init_state(build_model(config, 10), build_optimizer(config), shape, config.seed)
        filters = whitening_filters(images, config.mean, config.std)
        load({**state.variables, "params": set_filters(state.params, filters)}, self.network)
        self.optimizers = Optimizers(self.network, config.batch_size)

    def step(self, loss: torch.Tensor, lr: float, epoch: int) -> None:
        """One step from the mean loss of a batch; its rates are those of the batch's sum."""
        self.network.zero_grad()
        self.network.stem_whiten.bias.requires_grad = epoch < self.config.stem_bias_epochs
        (loss * self.config.batch_size).backward()
        self.optimizers.step(lr / self.config.learning_rate)

    def state(self) -> Any:
        """What a resumed run needs; `load_state` takes it."""
        optimizers = self.optimizers
        return {
            "network": self.network.state_dict(),
            "sgd": optimizers.sgd.state_dict(),
            "momenta": optimizers.momenta,
        }

    def load_state(self, state: Any) -> None:
        """Goes on from `state`."""
        self.network.load_state_dict(state["network"])
        self.optimizers.sgd.load_state_dict(state["sgd"])
        self.optimizers.momenta = state["momenta"]


def main() -> None:
    """Trains until the last epoch, or resumes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.torch_recipe", description=__doc__)
    parser.add_argument("--config", default="revised", help="recipe (default: %(default)s)")
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--epochs", type=int, help="epoch to end after (default: the recipe's)")
    args, overrides = parser.parse_known_args()
    config = load_config(find_config(args.config), overrides)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dataset = load_dataset(config.dataset, data_dir=config.data_dir)
    batches = TrainBatches(
        dataset.train_images,
        dataset.train_labels,
        batch_size=config.batch_size,
        seed=config.seed,
        transforms=build_transforms(
            crop_padding=config.crop_padding,
            flip=config.flip,
            pad_mode=config.pad_mode,
            alternating=config.flip_mode == "alternating",
        ),
        drop_last=config.drop_last,
    )
    if config.model.startswith("airbench94"):
        trained = Airbench(config, np.asarray(dataset.train_images), device)
    else:
        trained = Adam(config, len(dataset.class_names), device)
    network = trained.network
    schedule = build_schedule(config, batches.steps_per_epoch)
    mean, std = (
        torch.tensor(values, device=device).reshape(3, 1, 1) for values in (config.mean, config.std)
    )

    def logits(images: np.ndarray) -> torch.Tensor:
        x = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float()
        x = ((x / 255 - mean) / std).to(memory_format=torch.channels_last)
        in_bfloat16 = config.dtype == "bfloat16"
        with torch.autocast(device, torch.bfloat16, enabled=in_bfloat16):
            return network(x).float()

    def measure(
        out: torch.Tensor, labels: np.ndarray, label_smoothing: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(mean loss, number of correct answers) of logits."""
        target = torch.from_numpy(labels).to(device).long()
        loss = torch.nn.functional.cross_entropy(out, target, label_smoothing=label_smoothing)
        return loss, (out.argmax(1) == target).sum()

    def evaluate(predict: Any) -> tuple[float, float]:
        """(mean loss, accuracy) on the test images, of logits as `predict` gives them."""
        network.eval()
        sum_loss, num_correct = 0.0, 0
        with torch.inference_mode():
            for part in eval_chunks(
                dataset.test_images, dataset.test_labels, config.eval_batch_size
            ):
                loss, correct = measure(predict(part.images[part.mask]), part.labels[part.mask])
                sum_loss += float(loss) * int(part.mask.sum())
                num_correct += int(correct)
        return sum_loss / len(dataset.test_labels), num_correct / len(dataset.test_labels)

    def views(images: np.ndarray) -> torch.Tensor:
        def predict(_: Any, view: Any) -> Any:
            return jnp.asarray(logits(np.array(view)).numpy(force=True))

        mean_logits: Any = predict_views(predict, config.test_views)
        return torch.from_numpy(np.array(mean_logits(None, jnp.asarray(images))))

    args.workdir.mkdir(parents=True, exist_ok=True)
    saved, log = args.workdir / "checkpoint.pt", args.workdir / "metrics.jsonl"
    first = 0
    if saved.exists():
        state = torch.load(saved, map_location=device, weights_only=True)
        trained.load_state(state)
        first = state["epoch"]
        log.write_text("".join(log.read_text().splitlines(keepends=True)[:first]))
    versions = machine(("torch", "numpy"))
    if device == "cuda":
        versions["devices"] = [torch.cuda.get_device_name()]
    (args.workdir / "config.json").write_text(to_json(config))
    (args.workdir / "machines.json").write_text(json.dumps([versions], indent=2) + "\n")
    for epoch in range(first, args.epochs or config.num_epochs):
        start = time.perf_counter()
        network.train()
        sums: list[Any] = []
        step = epoch * batches.steps_per_epoch
        # Closed at once where training ends within an epoch, so that its thread ends.
        with contextlib.closing(prefetch(lambda e=epoch: batches.epoch(e))) as chunks:
            for chunk in chunks:
                out = logits(chunk.images[0])
                loss, correct = measure(out, chunk.labels[0], config.label_smoothing)
                trained.step(loss, float(schedule(step)), epoch)
                sums.append((loss.detach(), correct))
                step += 1
        train_loss = float(torch.stack([loss for loss, _ in sums]).mean())
        train_correct = int(torch.stack([correct for _, correct in sums]).sum())
        seconds = time.perf_counter() - start
        test_loss, test_accuracy = evaluate(logits)
        images = len(sums) * config.batch_size if config.drop_last else len(dataset.train_labels)
        row = {
            "epoch": epoch + 1,
            "step": (epoch + 1) * batches.steps_per_epoch,
            "train_loss": train_loss,
            "train_accuracy": train_correct / images,
            "test_loss": test_loss,
            "test_accuracy": test_accuracy,
            "learning_rate": float(schedule(step - 1)),
            "seconds": seconds,
            "images_per_second": images / seconds,
        }
        if config.test_views != "none" and epoch + 1 == config.num_epochs:
            row["test_views_loss"], row["test_views_accuracy"] = evaluate(views)
        with open(log, "a") as file:
            file.write(json.dumps(row) + "\n")
        torch.save(trained.state() | {"epoch": epoch + 1}, saved.with_suffix(".new"))
        saved.with_suffix(".new").replace(saved)
        print(
            f"epoch {epoch + 1}: train {row['train_accuracy']:.2%}, test "
            f"{row['test_accuracy']:.2%}, {row['images_per_second']:,.0f} images/s",
            flush=True,
        )


if __name__ == "__main__":
    main()

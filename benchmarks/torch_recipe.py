"""The paper's recipe trained in PyTorch: the same images, batches and augmentation, epoch by epoch.

The network is that of the tests, with PyTorch's own initial weights. It writes metrics.jsonl as
train.py does, in a folder that `flax_resnet paper` compares with; the same command resumes it.
"""

import argparse
import contextlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flax_resnet.config.load import design_of, find_config, load_config
from flax_resnet.data.batches import TrainBatches, eval_chunks, prefetch
from flax_resnet.data.load import load_dataset
from flax_resnet.data.transforms import build_transforms
from flax_resnet.process.machine import machine
from tests.torch_twin import TorchResNet


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
        transforms=build_transforms(crop_padding=config.crop_padding, flip=config.flip),
        drop_last=config.drop_last,
    )
    torch.manual_seed(config.seed)
    network = TorchResNet(design_of(config), len(dataset.class_names))
    network = network.to(device).to(memory_format=torch.channels_last)  # pyright: ignore
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    mean, std = (
        torch.tensor(values, device=device).reshape(3, 1, 1) for values in (config.mean, config.std)
    )

    def logits(images: np.ndarray) -> torch.Tensor:
        x = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float()
        x = ((x / 255 - mean) / std).to(memory_format=torch.channels_last)
        in_bfloat16 = config.dtype == "bfloat16"
        with torch.autocast(device, torch.bfloat16, enabled=in_bfloat16):
            return network(x).float()

    def measure(images: np.ndarray, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """(mean loss, number of correct answers)."""
        out, target = logits(images), torch.from_numpy(labels).to(device).long()
        return torch.nn.functional.cross_entropy(out, target), (out.argmax(1) == target).sum()

    args.workdir.mkdir(parents=True, exist_ok=True)
    saved, log = args.workdir / "checkpoint.pt", args.workdir / "metrics.jsonl"
    first = 0
    if saved.exists():
        state = torch.load(saved, map_location=device, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["epoch"]
        log.write_text("".join(log.read_text().splitlines(keepends=True)[:first]))
    versions = machine(("torch", "numpy"))
    if device == "cuda":
        versions["devices"] = [torch.cuda.get_device_name()]
    (args.workdir / "machines.json").write_text(json.dumps([versions], indent=2) + "\n")
    for epoch in range(first, args.epochs or config.num_epochs):
        start = time.perf_counter()
        network.train()
        sums: list[Any] = []
        # Closed at once where training ends within an epoch, so that its thread ends.
        with contextlib.closing(prefetch(lambda e=epoch: batches.epoch(e))) as chunks:
            for chunk in chunks:
                optimizer.zero_grad()
                loss, correct = measure(chunk.images[0], chunk.labels[0])
                loss.backward()
                optimizer.step()
                sums.append((loss.detach(), correct))
        train_loss = float(torch.stack([loss for loss, _ in sums]).mean())
        train_correct = int(torch.stack([correct for _, correct in sums]).sum())
        seconds = time.perf_counter() - start
        network.eval()
        test_loss, test_correct = 0.0, 0
        with torch.inference_mode():
            for part in eval_chunks(
                dataset.test_images, dataset.test_labels, config.eval_batch_size
            ):
                loss, correct = measure(part.images[part.mask], part.labels[part.mask])
                test_loss += float(loss) * int(part.mask.sum())
                test_correct += int(correct)
        images, tested = len(dataset.train_labels), len(dataset.test_labels)
        row = {
            "epoch": epoch + 1,
            "step": (epoch + 1) * batches.steps_per_epoch,
            "train_loss": train_loss,
            "train_accuracy": train_correct / images,
            "test_loss": test_loss / tested,
            "test_accuracy": test_correct / tested,
            "learning_rate": config.learning_rate,
            "seconds": seconds,
            "images_per_second": images / seconds,
        }
        with open(log, "a") as file:
            file.write(json.dumps(row) + "\n")
        state = {
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "epoch": epoch + 1,
        }
        torch.save(state, saved.with_suffix(".new"))
        saved.with_suffix(".new").replace(saved)
        print(
            f"epoch {epoch + 1}: train {row['train_accuracy']:.2%}, test "
            f"{row['test_accuracy']:.2%}, {row['images_per_second']:,.0f} images/s",
            flush=True,
        )


if __name__ == "__main__":
    main()

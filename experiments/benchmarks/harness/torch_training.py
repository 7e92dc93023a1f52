"""The PyTorch side of ``experiments.benchmarks.same_training``: the same steps, written plainly.

Run under a Python that has torch and NumPy. Its argument is a folder with ``job.npz``, which the
JAX side wrote: the initial state dict ("weights/NAME"), and for each step the normalized images
(n, 3, h, w), their labels, the labels that they are mixed with, the share of the former, and the
learning rate; and constants. It writes ``torch.npz``: the loss of each step and the final state
dict.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from experiments.benchmarks.harness.torch_networks import CifarResNet

STEPS = ("images", "labels", "mixed_labels", "shares", "rates")
"""Arrays of the job that have a row for each step."""


def train(job: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Trains by SGD with Nesterov's momentum; weight decay is of kernels alone, as in senet_jax."""
    dtype = getattr(torch, str(job["precision"]))
    classes, smoothing = int(job["classes"]), float(job["label_smoothing"])
    model = CifarResNet(int(job["depth"]), classes, se=True, reduction=int(job["reduction"]))
    weights = {
        name.removeprefix("weights/"): torch.from_numpy(array)
        for name, array in job.items()
        if name.startswith("weights/")
    }
    counters = {name: value for name, value in model.state_dict().items() if not value.ndim}
    model.load_state_dict({**counters, **weights}, strict=True)
    model.to(dtype).train()
    kernels = [each for each in model.parameters() if each.ndim > 1]
    others = [each for each in model.parameters() if each.ndim <= 1]
    groups = [
        {"params": kernels, "weight_decay": float(job["weight_decay"])},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=1.0, momentum=float(job["momentum"]), nesterov=True)
    losses = []
    steps = zip(*(job[name] for name in STEPS), strict=True)
    for images, labels, mixed_labels, share, rate in steps:
        for group in optimizer.param_groups:
            group["lr"] = float(rate)
        logits = model(torch.from_numpy(images).to(dtype))
        loss = sum(
            weight * functional.cross_entropy(logits, target, label_smoothing=smoothing)
            for weight, target in (
                (float(share), torch.from_numpy(labels)),
                (1 - float(share), torch.from_numpy(mixed_labels)),
            )
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    final = {f"weights/{name}": value.numpy() for name, value in model.state_dict().items()}
    return {"losses": np.array(losses), **final}


def main() -> None:
    """Reads the job, trains and writes the result."""
    folder = Path(sys.argv[1])
    with np.load(folder / "job.npz") as arrays:
        job = dict(arrays)
    np.savez(folder / "torch.npz", allow_pickle=False, **train(job))


if __name__ == "__main__":
    main()

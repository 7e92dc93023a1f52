"""Logits of a network in PyTorch, for given weights and images: the other side of ``parity``.

Run under a Python that has torch, NumPy, and timm for the networks that are timm's. Its argument is
a folder with ``job.json`` (a ``jobs.Job``), ``weights.npz`` (a state dict) and ``images.npy``
(n, 3, h, w); it writes ``logits.npz`` with "train" and "infer", each (n, classes). It computes in
float32 on the CPU.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from experiments.benchmarks.harness.torch_worker import build


def main() -> None:
    """Writes the logits."""
    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text())
    images = torch.from_numpy(np.load(folder / "images.npy"))
    with np.load(folder / "weights.npz") as arrays:
        weights = {name: torch.from_numpy(arrays[name]) for name in arrays}
    model = build(job["model"], job["classes"])
    # PyTorch's counters of batches are no weights, and those alone may stay as they are.
    counters = {name: value for name, value in model.state_dict().items() if not value.ndim}
    model.load_state_dict({**counters, **weights}, strict=True)
    with torch.no_grad():
        # First, because training changes the running statistics.
        infer = model.eval()(images).numpy()
        train = model.train()(images).numpy()
    np.savez(folder / "logits.npz", train=train, infer=infer)


if __name__ == "__main__":
    main()

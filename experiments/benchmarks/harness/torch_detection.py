"""Steps of torchvision's detectors, on request: the other side of the race of detectors.

Run by ``race_detection`` under a Python that has torch and torchvision. It reads a job, a folder
with weights, images and objects in it, and answers as ``torch_worker`` does.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torchvision.models.detection.image_list import ImageList

from experiments.benchmarks.harness.torch_worker import Answer, peak_memory, reset_peak, serve
from senet_jax.training.machine.allocator import keep_freed_memory


class Detector:
    """A detector with given weights, its data, and steps of it.

    Images are normalized and padded before, and masks stay grids over their boxes: what goes into
    the network and comes out is that of senet_jax.
    """

    def __init__(self, job: dict[str, Any], folder: Path) -> None:
        self.mode: str = job["mode"]
        self.training = self.mode != "infer"
        reset_peak()
        self.before = peak_memory()
        build = getattr(torchvision.models.detection, job["model"])
        model = build(
            weights=None,
            weights_backbone=None,
            num_classes=job["classes"],
            trainable_backbone_layers=5,
        )
        with np.load(folder / "weights.npz") as weights:
            state = {name: torch.from_numpy(weights[name]) for name in weights}
        counters = {name for name in model.state_dict() if name.endswith("num_batches_tracked")}
        found = model.load_state_dict(state, strict=False)
        if found.unexpected_keys or {*found.missing_keys} - counters:
            raise ValueError(f"the weights do not fit: {found}")
        self.model = model.to(memory_format=torch.channels_last).train(self.training)
        self.params = sum(p.numel() for p in model.parameters())
        self.optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        with np.load(folder / "data.npz") as data:
            images = torch.from_numpy(data["images"].transpose(0, 3, 1, 2).copy())
            self.targets = [
                {
                    "boxes": torch.from_numpy(data["boxes"][image]),
                    "labels": torch.from_numpy(data["labels"][image]).long(),
                    "masks": torch.from_numpy(data["masks"][image]),
                }
                for image in range(len(images))
            ]
        images = images.contiguous(memory_format=torch.channels_last)
        self.images = ImageList(images, [tuple(images.shape[2:])] * len(images))
        self.found: dict[str, Any] = {}

    def features(self) -> dict[str, torch.Tensor]:
        """The maps of the pyramid."""
        return self.model.backbone(self.images.tensors)

    def propose(self, features: dict[str, torch.Tensor]) -> tuple[Any, dict[str, torch.Tensor]]:
        """Proposals, and in training the losses of the RPN."""
        return self.model.rpn(self.images, features, self.targets if self.training else None)

    def forward(self) -> tuple[Any, dict[str, torch.Tensor]]:
        """Detections, and in training the losses."""
        features = self.features()
        proposals, first = self.propose(features)
        found, then = self.model.roi_heads(
            features,
            proposals,
            self.images.image_sizes,
            self.targets if self.training else None,
        )
        return found, {**first, **then}

    def of_maps(self) -> torch.Tensor:
        """The mean square of the maps, added over the levels."""
        return sum(each.square().mean() for each in self.features().values())

    def train(self) -> dict[str, torch.Tensor]:
        """A training step; returns the losses."""
        self.optimizer.zero_grad(set_to_none=True)
        _, losses = self.forward()
        sum(losses.values()).backward()
        self.optimizer.step()
        return {name: loss.detach() for name, loss in losses.items()}

    def infer(self) -> dict[str, float]:
        """Detects; returns the number of detections and the sum of their scores."""
        with torch.inference_mode():
            found, _ = self.forward()
        scores = torch.cat([each["scores"] for each in found])
        return {"detections": len(scores), "scores": float(scores.sum())}

    def part(self) -> dict[str, torch.Tensor]:
        """A part of a training step; returns the losses that it computes."""
        if self.mode == "feature_gradients":
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.of_maps()
            loss.backward()
            return {"loss": loss.detach()}
        with torch.no_grad():
            if self.mode == "features":
                return {"loss": self.of_maps()}
            if self.mode == "proposals":
                return self.propose(self.features())[1]
            return self.forward()[1]

    def run(self, steps: int) -> float:
        """Seconds of so many steps."""
        step = {"train": self.train, "infer": self.infer}.get(self.mode, self.part)
        began = time.perf_counter()
        for _ in range(steps):
            self.found = {name: float(value) for name, value in step().items()}
        return time.perf_counter() - began


def steps(answer: Answer) -> None:
    """Answers requests until there are no more."""
    request = json.loads(sys.stdin.readline())
    # As the other side does, and before PyTorch starts its threads.
    kept = keep_freed_memory()
    work = Detector(request["job"], Path(request["folder"]))
    first = work.run(1)
    about = {
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "freed memory": "kept" if kept else "as malloc does",
    }
    peak = peak_memory() - work.before
    answer(
        {
            "module": type(work.model).__module__,
            "params": work.params,
            "about": about,
            "first_step_s": first,
            "peak_bytes": peak,
            "found": work.found,
        }
    )
    for line in sys.stdin:
        seconds = work.run(json.loads(line))
        answer({"seconds": seconds, "peak_bytes": peak_memory() - work.before})


if __name__ == "__main__":
    serve(steps)

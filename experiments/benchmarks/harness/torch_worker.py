"""Steps of a network in PyTorch, on request: the other side of the race.

Run by ``contenders.TorchContender`` under a Python that has torch and timm and need have nothing
else; networks of ``torch_networks`` do without timm. It reads one JSON object a line and answers
with one: first the job, answered once the network has made a step; then numbers of steps, each
answered with the seconds they took. A failure is answered with an error, and ends the process.
"""

import importlib.metadata
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from experiments.benchmarks.harness.torch_networks import TWINS
from senet_jax.training.machine.allocator import keep_freed_memory


def import_timm() -> Any:
    """Imports timm, also where torchvision lacks its compiled operators, which it never calls."""
    try:
        import timm
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import timm
    return timm


def build(model: str, classes: int) -> Any:
    """The network in PyTorch, initialised: its twin in ``torch_networks``, or timm's."""
    if model in TWINS:
        return TWINS[model](num_classes=classes)
    return import_timm().create_model(model, num_classes=classes)


def peak_memory() -> int:
    """Bytes of GPU memory, or of this process, at the most since ``reset_peak``."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return 1024 * int(fields["VmHWM"].split()[0])


def reset_peak() -> None:
    """Forgets the peak: imports need more than many a network."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


class Work:
    """A network, its data, and what is done with them."""

    def __init__(self, job: dict[str, Any]) -> None:
        options = job["options"]
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.amp, self.mode = "amp" in options, job["mode"]
        layout = torch.channels_last if "channels_last" in options else torch.contiguous_format
        torch.manual_seed(0)
        if job["model"] not in TWINS:
            import_timm()
        reset_peak()
        self.before = peak_memory()
        model = build(job["model"], job["classes"])
        self.module = type(model).__module__
        self.params = sum(p.numel() for p in model.parameters())
        model = model.to(self.device, memory_format=layout)
        model.train(self.mode != "infer")
        self.optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        # The optimizer stays outside, as is usual.
        self.model: Callable[..., Any] = torch.compile(model) if "compile" in options else model
        shape = (job["batch"], 3, job["size"], job["size"])
        self.images = torch.randn(shape, device=self.device).to(memory_format=layout)
        self.labels = torch.randint(job["classes"], shape[:1], device=self.device)

    def forward(self) -> Any:
        """The logits."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
            return self.model(self.images)

    def synchronize(self) -> None:
        """Waits for the GPU."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def run(self, steps: int) -> float:
        """Seconds of so many steps."""
        self.synchronize()
        began = time.perf_counter()
        for _ in range(steps):
            if self.mode == "infer":
                with torch.inference_mode():
                    self.forward()
                self.synchronize()
                continue
            if self.mode == "train":
                self.optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(self.forward().float(), self.labels)
            if self.mode == "train":
                loss.backward()
                self.optimizer.step()
        self.synchronize()
        return time.perf_counter() - began


Answer = Callable[[dict[str, Any]], None]


def serve(handle: Callable[[Answer], None]) -> None:
    """Runs a function that sends answers, and answers with the error if it fails."""
    # The output of libraries must not get among the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(values: dict[str, Any]) -> None:
        print(json.dumps(values), file=answers, flush=True)

    try:
        handle(answer)
    except BrokenPipeError:
        sys.exit(1)  # Nobody is left to ask.
    except Exception as error:
        traceback.print_exc()
        # The first paragraph says what failed; those after it say how to debug PyTorch.
        reason = " ".join(str(error).split("\n\n")[0].split())
        answer({"error": f"{type(error).__name__}: {reason}"})
        sys.exit(1)


def start(job: dict[str, Any]) -> tuple[Work, dict[str, str]]:
    """The network and its data, in a process that keeps freed memory, and facts about it."""
    # As the Flax networks of the race do, and before PyTorch starts its threads.
    kept = not torch.cuda.is_available() and keep_freed_memory()
    work = Work(job)
    return work, {**versions(), "freed memory": "kept" if kept else "as malloc does"}


def versions() -> dict[str, str]:
    """The versions of the packages that were imported."""
    return {
        name: importlib.metadata.version(name) for name in ("torch", "timm") if name in sys.modules
    }


def steps(answer: Answer) -> None:
    """Answers requests until there are no more."""
    work, about = start(json.loads(sys.stdin.readline()))
    first = work.run(1)
    # Until its turn comes, others may need the memory.
    torch.cuda.empty_cache()
    peak = peak_memory() - work.before
    ready = {"module": work.module, "params": work.params, "about": about}
    answer({**ready, "first_step_s": first, "peak_bytes": peak})
    for line in sys.stdin:
        seconds = work.run(json.loads(line))
        answer({"seconds": seconds, "peak_bytes": peak_memory() - work.before})


if __name__ == "__main__":
    serve(steps)

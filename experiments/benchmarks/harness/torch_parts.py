"""The parts of a training step in PyTorch, on request: the other side of ``where_time_goes``.

Run under a Python that has torch, and timm for the networks that are timm's. The first line of its
input is an object with the job, the options and the convolutions (``where_time_goes.Convolution``
as objects). It profiles training steps and answers with the seconds of a step that the operators
take. Each further line, [index of a convolution, "forward", "input" or "kernel", calls], is
answered with the seconds of so many calls of that pass.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from experiments.benchmarks.harness.torch_worker import Answer, Work, serve, start

PROFILED = 5
"""Steps that are profiled."""

FORWARD, BACKWARD = "aten::convolution", "aten::convolution_backward"


def operators(work: Work) -> dict[str, Any]:
    """Seconds of a step by operator, and those of the convolutions of maps of several pixels."""
    work.run(2)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        work.run(PROFILED)
    # A convolution of a single pixel, as in SE, is a matrix product in Flax.
    sums = {FORWARD: 0.0, BACKWARD: 0.0}
    for event in profiler.key_averages(group_by_input_shape=True):
        if event.key in sums:
            images = event.input_shapes[0 if event.key == FORWARD else 1]
            if images[2:] != [1, 1]:
                sums[event.key] += event.cpu_time_total
    scale = 1e-6 / PROFILED
    by_operator = {
        event.key: event.self_cpu_time_total * scale
        for event in profiler.key_averages()
        if event.self_cpu_time_total
    }
    return {
        "forward_s": sums[FORWARD] * scale,
        "gradients_s": sums[BACKWARD] * scale,
        "operators": dict(sorted(by_operator.items(), key=lambda item: -item[1])),
    }


def passes(convolution: dict[str, Any], layout: torch.memory_format) -> dict[str, Callable]:
    """The three passes of a convolution, each by itself."""
    geometry = convolution["geometry"]
    n, height, width, channels = convolution["images"]
    rows, columns, inner, features = convolution["kernel"]
    padding = [before for before, _ in geometry["padding"]]
    fields = (geometry["strides"], padding, geometry["dilation"])
    groups = geometry["groups"]
    x = torch.randn(n, channels, height, width).to(memory_format=layout)
    kernel = torch.randn(features, inner, rows, columns).to(memory_format=layout)

    def forward() -> torch.Tensor:
        return torch.nn.functional.conv2d(x, kernel, None, *fields, groups)

    dy = torch.randn_like(forward())

    def gradient(mask: list[bool]) -> Callable[[], Any]:
        return lambda: torch.ops.aten.convolution_backward(
            dy, x, kernel, None, *fields, False, [0, 0], groups, mask
        )

    return {
        "forward": forward,
        "input": gradient([True, False, False]),
        "kernel": gradient([False, True, False]),
    }


def parts(answer: Answer) -> None:
    """Answers requests until there are no more."""
    request = json.loads(sys.stdin.readline())
    work, about = start({**request["job"], "options": request["options"]})
    answer({**operators(work), "about": about})
    channels_last = "channels_last" in request["options"]
    layout = torch.channels_last if channels_last else torch.contiguous_format
    convolutions = [passes(each, layout) for each in request["convolutions"]]
    with torch.no_grad():
        for line in sys.stdin:
            index, name, calls = json.loads(line)
            call = convolutions[index][name]
            began = time.perf_counter()
            for _ in range(calls):
                call()
            answer({"seconds": time.perf_counter() - began})


if __name__ == "__main__":
    serve(parts)

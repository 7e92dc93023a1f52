"""The contenders of the race: networks of senet_jax, of plain Flax and of PyTorch."""

import dataclasses
import json
import math
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int, PyTree

from experiments.benchmarks.harness.jobs import Job
from experiments.benchmarks.harness.measure import Sampler, interleave, ratio, spread

TorchOption = Literal["channels_last", "amp", "compile"]


class Contender(Protocol):
    """A network that takes steps on request."""

    module: str
    """The Python module that defines the network."""
    params: int
    """Trainable parameters."""
    compile_s: float
    """Seconds before the first step could be taken."""
    peak_bytes: int
    """Memory that a step needs at the most, weights and images included."""

    def run(self, steps: int) -> float:
        """Seconds that so many steps take."""

    def close(self) -> None:
        """Gives the memory back."""


def random_variables(
    model: nn.Module, image: Float[Array, "1 h w c"], *, varied: bool = False
) -> PyTree[np.ndarray]:
    """Variables at the scale of He's initialisation, drawn without compiling an initialiser.

    Args:
        model: A module with the calling convention of the zoo.
        image: An image of the size that it is to take.
        varied: Draw biases, scales and statistics, too, so that no two channels are alike;
            otherwise biases and means are 0, scales and variances 1.
    """
    rng = np.random.default_rng(0)

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = path[-1].key
        if name == "kernel":
            scale = np.float32(np.sqrt(2 / np.prod(leaf.shape[:-1])))
            return scale * rng.standard_normal(leaf.shape, np.float32)
        positive = name in ("scale", "var")
        if varied:
            return rng.uniform(0.6 if positive else -0.4, 1.4, leaf.shape).astype(np.float32)
        return np.full(leaf.shape, positive, np.float32)

    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
    return jax.tree_util.tree_map_with_path(draw, shapes)


class JaxContender:
    """A Flax network, compiled ahead.

    Args:
        model: A module with the calling convention of the zoo.
        job: The work of a step.
    """

    def __init__(self, model: nn.Module, job: Job) -> None:
        rng = np.random.default_rng(1)
        shape = (job.batch, job.size, job.size, 3)
        self._images = jnp.asarray(rng.standard_normal(shape, np.float32))
        self._labels = jnp.asarray(rng.integers(job.classes, size=job.batch))
        variables = jax.device_put(random_variables(model, self._images[:1]))
        self.module = type(model).__module__
        self.params = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
        self._trains = job.mode == "train"
        self._state = (variables, optax.sgd(1e-3, momentum=0.9).init(variables["params"]))
        began = time.perf_counter()
        if self._trains:
            step = jax.jit(_train_step(model), donate_argnums=0)
            lowered = step.lower(self._state, self._images, self._labels)
        elif job.mode == "forward":
            lowered = jax.jit(_loss(model)).lower(variables, self._images, self._labels)
        else:
            lowered = jax.jit(lambda v, x, labels: model.apply(v, x, train=False)).lower(
                variables, self._images, self._labels
            )
        self._compiled: Any = lowered.compile()
        self.compile_s = time.perf_counter() - began
        self.peak_bytes = bytes_of_step(self._compiled)

    def run(self, steps: int) -> float:
        began = time.perf_counter()
        for _ in range(steps):
            if self._trains:
                self._state, result = self._compiled(self._state, self._images, self._labels)
            else:
                # Waited for, because a CPU would compute several at once.
                result = jax.block_until_ready(
                    self._compiled(self._state[0], self._images, self._labels)
                )
        jax.block_until_ready((self._state, result))
        seconds = time.perf_counter() - began
        if not all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(result)):
            raise FloatingPointError("the network no longer gives finite numbers.")
        return seconds

    def close(self) -> None:
        del self._state, self._images, self._labels, self._compiled


def bytes_of_step(compiled: Any) -> int:
    """The memory that a compiled program needs, arguments and results included."""
    memory = compiled.memory_analysis()
    # Donated buffers are counted among the arguments and among the outputs.
    needed: int = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )
    return needed


def _loss(model: nn.Module) -> Any:
    """The loss of a training step and the new running statistics, from the variables."""

    def loss_fn(
        variables: PyTree[Array], images: Float[Array, "n h w c"], labels: Int[Array, " n"]
    ) -> tuple[Float[Array, ""], PyTree[Array]]:
        logits, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), updated

    return loss_fn


def _train_step(model: nn.Module) -> Any:
    optimizer, loss_fn = optax.sgd(1e-3, momentum=0.9), _loss(model)

    def step(
        state: tuple[PyTree[Array], PyTree[Array]],
        images: Float[Array, "n h w c"],
        labels: Int[Array, " n"],
    ) -> tuple[tuple[PyTree[Array], PyTree[Array]], Float[Array, ""]]:
        variables, momentum = state

        def of_params(params: PyTree[Array]) -> tuple[Array, PyTree[Array]]:
            return loss_fn({**variables, "params": params}, images, labels)

        (loss, updated), grads = jax.value_and_grad(of_params, has_aux=True)(variables["params"])
        updates, momentum = optimizer.update(grads, momentum)
        params = optax.apply_updates(variables["params"], updates)
        return ({"params": params, **updated}, momentum), loss

    return step


class TorchError(RuntimeError):
    """A failure of the PyTorch process; the message says why."""


class TorchProcess:
    """A script of this folder under another Python, which answers requests, one a line, in JSON.

    It starts to work at once, and finds the modules of this source tree.

    Args:
        python: A Python that has torch, and timm for the networks that are timm's.
        script: Name of the file.
    """

    def __init__(self, python: str, script: str) -> None:
        # Without a cache of its own torch.compile would find what an earlier race compiled.
        self._cache = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            [python, str(Path(__file__).with_name(script))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**torch_environment(), "TORCHINDUCTOR_CACHE_DIR": self._cache.name},
        )

    def send(self, request: Any) -> None:
        """Sends a request and does not wait."""
        assert self._process.stdin
        print(json.dumps(request), file=self._process.stdin, flush=True)

    def receive(self) -> dict[str, Any]:
        """Waits for the answer.

        Raises:
            TorchError: The process failed, and has ended.
        """
        assert self._process.stdout
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "the process ended; see above for why"}
        if "error" in answer:
            self.close()
            raise TorchError(answer["error"])
        return answer

    def close(self) -> None:
        """Ends the process, also one that has failed."""
        self._process.kill()
        self._process.communicate()
        self._cache.cleanup()


class TorchContender:
    """The network in PyTorch, in a process of another Python.

    The network is timm's of the same name, or that of ``torch_networks`` where timm lacks it. The
    process starts to work at once; ``wait`` waits until it is ready.

    Args:
        python: A Python that has torch, and timm for the networks that are timm's.
        job: The work of a step.
        options: The options of PyTorch; "amp" is bfloat16.
    """

    def __init__(self, python: str, job: Job, options: tuple[TorchOption, ...] = ()) -> None:
        self._process = TorchProcess(python, "torch_worker.py")
        self._process.send({**dataclasses.asdict(job), "options": options})

    def wait(self) -> dict[str, Any]:
        """Waits until the first step is done.

        Returns:
            All that the process answers after it.

        Raises:
            TorchError: The network cannot be built or cannot take the step.
        """
        ready = self._process.receive()
        self.module: str = ready["module"]
        self.params: int = ready["params"]
        self.compile_s: float = ready["first_step_s"]
        self.peak_bytes: int = ready["peak_bytes"]
        self.about: dict[str, str] = ready["about"]
        return ready

    def run(self, steps: int) -> float:
        self._process.send(steps)
        answer = self._process.receive()
        self.peak_bytes = answer["peak_bytes"]
        return answer["seconds"]

    def close(self) -> None:
        self._process.close()


def torch_environment() -> dict[str, str]:
    """Environment of a PyTorch process: it finds this source tree, which it need not install."""
    root = str(Path(__file__).resolve().parents[3])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


OURS, PLAIN_FLAX, TORCH = "senet_jax", "plain Flax", "PyTorch"
COMPILED = "torch.compile"
"""PyTorch's network, compiled."""


def compete(
    contenders: Mapping[str, Contender],
    pairs: int,
    sample_s: float = 1.0,
    slow_s: float = math.inf,
    slow_pairs: int = 0,
) -> dict[str, list[float]]:
    """Measures contenders in turns.

    Args:
        contenders: By name.
        pairs: Rounds of measurements.
        sample_s: A measurement takes as many steps as need about so many seconds.
        slow_s: Whose step takes more seconds than this measures in the first rounds only.
        slow_pairs: The number of those rounds; 0 leaves such a contender out.

    Returns:
        The seconds of a step in each round, by name.
    """
    rounds: dict[str, int] = {}
    samplers: dict[str, Sampler] = {}
    for name, contender in contenders.items():
        step_s = contender.run(1)
        if step_s <= slow_s:
            step_s = contender.run(1)
        rounds[name] = pairs if step_s <= slow_s else min(slow_pairs, pairs)
        samplers[name] = _sampler(contender, steps=max(1, math.ceil(sample_s / step_s)))
    return interleave(samplers, rounds)


def _sampler(contender: Contender, steps: int) -> Sampler:
    return lambda: contender.run(steps) / steps


def rows(
    job: Job, contenders: Mapping[str, Contender], times: Mapping[str, Sequence[float]]
) -> list[dict[str, Any]]:
    """The measurements, a row for each contender; without speeds for one that was left out.

    Args:
        job: The work of a step.
        contenders: By name.
        times: From ``compete``.
    """
    found = []
    for name, contender in contenders.items():
        measured = spread(times[name]) if times[name] else None
        found.append(
            {
                **dataclasses.asdict(job),
                "contender": name,
                "network of": contender.module,
                "images/s": measured and job.batch / measured.median,
                "compile s": contender.compile_s,
                "peak MiB": contender.peak_bytes / 2**20,
                "params": contender.params,
                "step_s": measured,
                "all_step_s": times[name],
            }
        )
    return found


def race_rows(
    job: Job, contenders: Mapping[str, Contender], times: Mapping[str, Sequence[float]]
) -> list[dict[str, Any]]:
    """As ``rows``, and with the ratios of senet_jax's times to everybody's."""
    found = rows(job, contenders, times)
    for row in found:
        others = times[row["contender"]]
        row[f"{OURS} / this"] = ratio(times[OURS], others) if others else None
    return found


def left_out(job: Job, name: str, reason: str) -> dict[str, Any]:
    """The row of a contender that takes no part, without times.

    Args:
        job: The work of a step.
        name: The contender.
        reason: Why it takes no part.
    """
    return {
        **dataclasses.asdict(job),
        "contender": name,
        "images/s": None,
        "left out": reason,
    }


COLUMNS = (
    "model",
    "mode",
    "size",
    "batch",
    "contender",
    "images/s",
    f"{OURS} / this",
    "compile s",
    "peak MiB",
)
"""Columns of the printed table of a race."""


def check_same_network(job: Job, contenders: Mapping[str, Contender]) -> None:
    """Refuses a race between different networks.

    Raises:
        ValueError: The numbers of parameters differ.
    """
    counts = {name: contender.params for name, contender in contenders.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"{job.model} is not the same network everywhere: {counts} parameters.")

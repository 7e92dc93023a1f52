"""Mask R-CNN of senet_jax against torchvision's, in the same run on the same machine.

    python -m experiments.benchmarks.race_detection --torch-python /path/to/python

measures training steps (SGD with momentum) and inference, the two in turns, from normalized images
to losses, or to boxes, classes, scores and masks in a grid over each box; and parts of a training
step, each a program of its own: the forward pass to the maps of the pyramid ("features"), to the
RPN's losses and proposals ("proposals"), to all losses ("losses"), and the gradients of backbone
and pyramid ("feature_gradients"), whose loss is the mean square of the maps. Both have the same
weights, drawn at random, the same images and the same objects, of which there are as many in each
image. Prints images a second, the median of the paired ratios with their quartiles, the seconds
until the first step and the peak of memory, then the milliseconds of the parts, and writes them to
--out (JSON). Before they are timed, both sides must agree: in inference, in the number of
detections and the sum of their scores; for "features" and "feature_gradients", in the loss.

torchvision calls its compiled NMS and RoIAlign. Where its wheel does not load for want of CUDA,
libraries stand in for those of CUDA (``harness/torchvision_cpu.py``). senet_jax computes as many
RoIs and masks as there may be, torchvision as many as there are: the objects and the weights are
such that both have nearly all of them. The machine must do nothing else, as of the race of
classifiers.
"""

import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from experiments.benchmarks.harness.contenders import (
    COLUMNS,
    OURS,
    TORCH,
    Contender,
    TorchContender,
    TorchProcess,
    bytes_of_step,
    compete,
    race_rows,
    random_variables,
)
from experiments.benchmarks.harness.measure import RESULTS, table, warn_if_busy, write
from experiments.benchmarks.harness.torchvision_cpu import library_path
from senet_jax.interchange import to_torch
from senet_jax.models.zoo import create_model
from senet_jax.training.machine.allocator import keep_freed_memory

LIMIT = 1e-3
"""Largest relative difference of the sums of the scores, or of the losses of the maps, of equal
networks."""

Mode = Literal["train", "infer", "features", "proposals", "losses", "feature_gradients"]

PARTS: dict[str, tuple[tuple[Mode, ...], tuple[Mode, ...]]] = {
    "forward: backbone and pyramid": (("features",), ()),
    "forward: RPN and proposals": (("proposals",), ("features",)),
    "forward: heads of boxes and masks": (("losses",), ("proposals",)),
    "backward: backbone and pyramid": (("feature_gradients",), ("features",)),
    "backward: RPN and heads; update": (("train", "features"), ("losses", "feature_gradients")),
    "complete step": (("train",), ()),
}
"""The parts of a training step: the modes whose times are added and subtracted."""


@dataclasses.dataclass(frozen=True)
class DetectionJob:
    """The work that both do in a step."""

    model: str
    mode: Mode
    batch: int
    size: int
    classes: int = 91


@dataclasses.dataclass(frozen=True)
class Race:
    """Race senet_jax against torchvision."""

    torch_python: str
    """A Python that has torch and torchvision."""
    model: str = "maskrcnn_resnet50_fpn"
    """A detector of torchvision."""
    modes: tuple[Mode, ...] = get_args(Mode)
    """Training steps, inference, or parts of a training step."""
    batch: int = 2
    """Images of a step."""
    size: int = 320
    """Side of the images, pixels."""
    objects: int = 24
    """Objects of an image."""
    pairs: int = 7
    """Rounds of measurements."""
    sample_s: float = 1.0
    """Seconds of a measurement, or those of one step if that is more."""
    out: Path = RESULTS / "race_detection.json"
    """The result."""


def data(job: DetectionJob, objects: int) -> dict[str, np.ndarray]:
    """Images of noise, and objects that are ellipses in boxes of a fifth to two thirds of them."""
    rng = np.random.default_rng(0)
    shape = (job.batch, objects)
    sides = rng.uniform(0.2, 0.66, (*shape, 2)) * job.size
    corner = rng.uniform(0, 1, (*shape, 2)) * (job.size - sides)
    middle, half = corner + sides / 2, sides / 2
    row, column = np.mgrid[: job.size, : job.size]
    away = ((column - middle[..., 0, None, None]) / half[..., 0, None, None]) ** 2
    away = away + ((row - middle[..., 1, None, None]) / half[..., 1, None, None]) ** 2
    return {
        "images": rng.standard_normal((job.batch, job.size, job.size, 3)).astype(np.float32),
        "boxes": np.concatenate([corner, corner + sides], -1).astype(np.float32),
        "labels": rng.integers(1, job.classes, shape).astype(np.int32),
        "masks": (away <= 1).astype(np.uint8),
    }


def weights(model: Any, images: np.ndarray) -> PyTree[np.ndarray]:
    """Weights at random with which the maps keep their size, and some classes are likely."""
    drawn = random_variables(model, jnp.asarray(images[:1]))

    def change(path: Any, leaf: np.ndarray) -> np.ndarray:
        names = [each.key for each in path]
        factors = {"bn3": 0.2, "bbox_pred": 0.1, "cls_score": 0.5}
        (factor,) = [factors[name] for name in factors if name in names] or [1.0]
        return factor * leaf if names[-1] in ("kernel", "scale") else leaf

    return jax.tree_util.tree_map_with_path(change, drawn)


class JaxDetector:
    """The detector of senet_jax, compiled ahead."""

    def __init__(self, job: DetectionJob, variables: Any, given: dict[str, np.ndarray]) -> None:
        model = create_model(job.model, num_classes=job.classes)
        self.module = type(model).__module__
        self.params = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
        self._trains = job.mode == "train"
        optimizer = optax.sgd(1e-3, momentum=0.9)
        variables = jax.device_put(variables)
        self._state: Any = (variables, optimizer.init(variables["params"]), jnp.int32(0))
        images = jnp.asarray(given["images"])
        targets = {name: jnp.asarray(given[name]) for name in ("boxes", "labels", "masks")}
        targets["valid"] = jnp.ones(given["labels"].shape, bool)
        self._infers = job.mode == "infer"
        self._inputs = (images,) if self._infers else (images, targets)

        def of_params(params: Any, state: Any, images: Array, targets: Any) -> Any:
            key = jax.random.fold_in(jax.random.key(0), state[2])
            return model.apply(
                {**state[0], "params": params},
                images,
                None,
                targets,
                train=True,
                rngs={"dropout": key, "sampling": key},
                mutable=["batch_stats", "intermediates"],
                capture_intermediates=lambda module, _: module.name == "pyramid",
            )

        def total(*arguments: Any) -> Any:
            losses, updated = of_params(*arguments)
            return sum(losses.values()), (losses, {"batch_stats": updated["batch_stats"]})

        def of_maps(*arguments: Any) -> Any:
            _, updated = of_params(*arguments)
            maps = updated["intermediates"]["pyramid"]["__call__"][0]
            return sum(jnp.square(each).mean() for each in maps), updated["batch_stats"]

        def train(state: Any, *inputs: Any) -> Any:
            variables, momentum, count = state
            gradients, (losses, updated) = jax.grad(total, has_aux=True)(
                variables["params"], state, *inputs
            )
            updates, momentum = optimizer.update(gradients, momentum)
            params = optax.apply_updates(variables["params"], updates)
            return ({"params": params, **updated}, momentum, count + 1), losses

        def infer(state: Any, images: Array) -> Any:
            return model.apply(state[0], images, train=False)

        def features(state: Any, *inputs: Any) -> Any:
            loss, statistics = of_maps(state[0]["params"], state, *inputs)
            return {"loss": loss}, statistics

        def proposals(state: Any, *inputs: Any) -> Any:
            losses, updated = of_params(state[0]["params"], state, *inputs)
            first = {name: losses[name] for name in ("loss_objectness", "loss_rpn_box_reg")}
            return first, updated["batch_stats"], updated["intermediates"]["box_samples"]

        def losses(state: Any, *inputs: Any) -> Any:
            return total(state[0]["params"], state, *inputs)[1]

        def feature_gradients(state: Any, *inputs: Any) -> Any:
            gradient = jax.value_and_grad(of_maps, has_aux=True)
            (loss, statistics), gradients = gradient(state[0]["params"], state, *inputs)
            trained = {name: gradients[name] for name in ("backbone", "pyramid")}
            return {"loss": loss}, statistics, trained

        programs: dict[Mode, Any] = {
            "train": train,
            "infer": infer,
            "features": features,
            "proposals": proposals,
            "losses": losses,
            "feature_gradients": feature_gradients,
        }
        began = time.perf_counter()
        step = jax.jit(programs[job.mode], donate_argnums=0 if self._trains else ())
        self._compiled: Any = step.lower(self._state, *self._inputs).compile()
        self.compile_s = time.perf_counter() - began
        self.peak_bytes = bytes_of_step(self._compiled)
        self.found: dict[str, Any] = {}

    def run(self, steps: int) -> float:
        began = time.perf_counter()
        for _ in range(steps):
            result = self._compiled(self._state, *self._inputs)
            if self._trains:
                self._state, result = result
            # Waited for, because a CPU would compute several at once.
            jax.block_until_ready(result)
        jax.block_until_ready(self._state)
        seconds = time.perf_counter() - began
        if not self._infers:
            losses = result if self._trains else result[0]
            self.found = {name: float(loss) for name, loss in losses.items()}
            if not np.isfinite(list(self.found.values())).all():
                raise FloatingPointError("the losses are no longer finite.")
        else:
            scores = np.asarray(result["scores"])
            count = int(np.asarray(result["valid"]).sum())
            self.found = {"detections": count, "scores": float(scores.sum())}
        return seconds

    def close(self) -> None:
        del self._state, self._inputs, self._compiled


class TorchDetector(TorchContender):
    """torchvision's detector, in a process of another Python."""

    def __init__(self, python: str, job: DetectionJob, folder: Path) -> None:
        self._process = TorchProcess(python, "torch_detection.py")
        self._process.send({"job": dataclasses.asdict(job), "folder": str(folder)})
        self.found: dict[str, Any] = self.wait()["found"]


def check(job: DetectionJob, ours: JaxDetector, theirs: TorchDetector) -> None:
    """Checks that both sides have the same network.

    Raises:
        ValueError: The parameters, or what was detected, differ.
    """
    if ours.params != theirs.params:
        raise ValueError(f"senet_jax has {ours.params} parameters, torchvision {theirs.params}.")
    print(f"senet_jax: {json.dumps(ours.found)}\ntorchvision: {json.dumps(theirs.found)}")
    if job.mode == "infer":
        mine, other = ours.found, theirs.found
        same = mine["detections"] == other["detections"]
        if not same or abs(mine["scores"] / other["scores"] - 1) > LIMIT:
            raise ValueError("the detections differ.")
    if "loss" in ours.found and abs(ours.found["loss"] / theirs.found["loss"] - 1) > LIMIT:
        raise ValueError("the maps of the pyramid differ.")


def run(race: Race) -> list[dict[str, Any]]:
    """Runs the race, and writes after each mode."""
    warn_if_busy()
    found: list[dict[str, Any]] = []
    for mode in race.modes:
        job = DetectionJob(race.model, mode, race.batch, race.size)
        given = data(job, race.objects)
        model = create_model(job.model, num_classes=job.classes)
        variables = weights(model, given["images"])
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            state = to_torch(job.model, variables, num_classes=job.classes)
            np.savez(folder / "weights.npz", **state)  # type: ignore[arg-type]
            np.savez(folder / "data.npz", **given)  # type: ignore[arg-type]
            theirs = TorchDetector(race.torch_python, job, folder)
        ours = JaxDetector(job, variables, given)
        ours.run(1)
        check(job, ours, theirs)
        contenders: dict[str, Contender] = {TORCH: theirs, OURS: ours}
        times = compete(contenders, race.pairs, race.sample_s)
        lines = race_rows(job, contenders, times)  # type: ignore[arg-type]
        answers = {TORCH: theirs.found, OURS: ours.found}
        for row in lines:
            row["found"] = answers[row["contender"]]
        found += lines
        for contender in contenders.values():
            contender.close()
        print(table(lines, COLUMNS), flush=True)
        write(race.out, found, peer=theirs.about, parts=parts(found))
    return found


def parts(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The milliseconds of the parts of a training step, of both sides, from medians.

    Args:
        found: The rows of ``run``. Parts whose modes were not measured are left out.
    """
    median = {(row["mode"], row["contender"]): 1e3 * row["step_s"].median for row in found}
    rows = []
    for part, (added, subtracted) in PARTS.items():
        if all((mode, OURS) in median for mode in added + subtracted):
            row: dict[str, Any] = {"part": part}
            for side in (OURS, TORCH):
                row[f"{side}, ms"] = sum(median[mode, side] for mode in added) - sum(
                    median[mode, side] for mode in subtracted
                )
            rows.append(row)
    return rows


def main() -> None:
    """Runs the benchmark."""
    import tyro  # Not at the top, because gpu.py runs where it is not installed.

    race = tyro.cli(Race, description=__doc__)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LD_LIBRARY_PATH"] = library_path(race.torch_python, Path(folder))
        found = run(race)
    print(table(found, COLUMNS))
    print(table(parts(found), ("part", f"{OURS}, ms", f"{TORCH}, ms")))


if __name__ == "__main__":
    main()

"""CIFAR networks with and without SE, seed after seed, on images that stay on the device.

The images are a balanced subset that fits into what travels to a rented machine: each is stored in
lossless WebP. Training is senet_jax's step, of which a program scans the steps of an epoch.
"""

import dataclasses
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8
from PIL import Image

from senet_jax.config import ModelConfig, OptimizerConfig
from senet_jax.data.config import AugmentConfig, DataConfig
from senet_jax.data.datasets import STATISTICS
from senet_jax.data.normalization import Normalization
from senet_jax.errors import UsageError
from senet_jax.files import write_whole
from senet_jax.models.zoo import create_model
from senet_jax.network import Network
from senet_jax.tasks.classification import Classification
from senet_jax.training.distributed.mesh import make_mesh, replicated
from senet_jax.training.optimizer import make_optimizer, make_schedule
from senet_jax.training.state import TrainState, draw_variables, state_of
from senet_jax.training.step import key_data, make_eval_step, make_train_step

SPLITS = ("train", "test")
CLASSES = 10
COLUMNS = ("network", "seed", "test error, %", "train error, %", "images/s", "seconds")
EVALUATED = 500
"""Images of a batch of evaluation."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Images with one class each."""

    images: UInt8[np.ndarray, "n 32 32 3"]
    labels: Int[np.ndarray, " n"]


def balanced(split: Split, per_class: int) -> Split:
    """The first images of each class, in the order of the split.

    Args:
        split: The complete split.
        per_class: Images of a class.

    Raises:
        UsageError: A class has fewer.
    """
    places = [np.flatnonzero(split.labels == label)[:per_class] for label in range(CLASSES)]
    least = min(map(len, places))
    if least < per_class:
        raise UsageError(f"a class has {least} images, and {per_class} are asked for.")
    kept = np.sort(np.concatenate(places))
    return Split(split.images[kept], split.labels[kept])


def pack(splits: dict[str, Split], out: Path) -> None:
    """Writes splits into a file (NPZ), each image in lossless WebP.

    Args:
        splits: By the names of ``SPLITS``.
        out: The file.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, split in splits.items():
        encoded = [_encoded(image) for image in split.images]
        arrays[f"{name}/bytes"] = np.frombuffer(b"".join(encoded), np.uint8)
        arrays[f"{name}/ends"] = np.cumsum([len(each) for each in encoded])
        arrays[f"{name}/labels"] = split.labels.astype(np.int32)

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    write_whole(out, write)


def _encoded(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "webp", lossless=True, quality=50, method=4)
    return data.getvalue()


def unpack(file: Path) -> dict[str, Split]:
    """Reads the splits that ``pack`` wrote."""
    found = {}
    with np.load(file) as arrays:
        for name in SPLITS:
            data, ends = arrays[f"{name}/bytes"].tobytes(), arrays[f"{name}/ends"].tolist()
            starts = [0, *ends[:-1]]
            parts = (data[start:end] for start, end in zip(starts, ends, strict=True))
            images = [np.asarray(Image.open(io.BytesIO(part))) for part in parts]
            found[name] = Split(np.stack(images), arrays[f"{name}/labels"])
    return found


def noise(train: int, test: int) -> dict[str, Split]:
    """Splits of noise, to try the training without the images."""
    rng = np.random.default_rng(0)
    return {
        name: Split(
            rng.integers(0, 256, (count, 32, 32, 3), np.uint8),
            rng.integers(0, CLASSES, count, np.int32),
        )
        for name, count in zip(SPLITS, (train, test), strict=True)
    }


class Training:
    """The training of one network, compiled once for all seeds.

    SGD with Nesterov's momentum, the rate 0.1 for 128 images, which rises for an epoch and falls to
    zero along a half cosine; weight decay 1e-4; random crops of padded images and flips.

    Args:
        name: A CIFAR network of the zoo.
        splits: The images.
        epochs: Epochs of a run.
        batch: Images of a step; the incomplete last batch of an epoch is left out.
        dtype: Compute precision.
    """

    def __init__(
        self, name: str, splits: dict[str, Split], epochs: int, batch: int, dtype: str
    ) -> None:
        self.name, self.epochs, self.batch = name, epochs, batch
        self.train, self.test = (
            {"image": jnp.asarray(split.images), "label": jnp.asarray(split.labels, jnp.int32)}
            for split in (splits[each] for each in SPLITS)
        )
        self.steps = len(splits["train"].labels) // batch
        self._model = create_model(name, num_classes=CLASSES, dtype=jnp.dtype(dtype))
        augment = AugmentConfig(pad=4, flip=True)
        task = Classification(0.0, augment, DataConfig(), ModelConfig(name=name))
        config = OptimizerConfig(learning_rate=0.1 * batch / 128, warmup_epochs=1)
        schedule = make_schedule(config, self.steps, epochs)
        self._optimizer = make_optimizer(config, schedule, decays=task.decays)
        mesh = make_mesh(1)
        network = Network(self._model, Normalization(*STATISTICS["cifar10"]), mesh)
        step = make_train_step(task, network, self._optimizer)
        evaluate = make_eval_step(task, network)

        def epoch(state: TrainState, order: Array, key: Array) -> tuple[TrainState, Array]:
            def body(state: TrainState, chosen: Array) -> tuple[TrainState, Array]:
                batch = jax.tree.map(lambda values: values[chosen], self.train)
                state, metrics = step(state, batch, key)  # type: ignore[arg-type]
                return state, metrics["top1"]

            state, right = jax.lax.scan(body, state, order)
            return state, right.mean()

        def right(variables: Any, batch: Any) -> Array:
            return evaluate(variables, batch).sums["top1"]

        self._epoch = jax.jit(epoch, donate_argnums=0)
        self._right = jax.jit(right)
        self._fresh = jax.jit(
            lambda key: state_of(
                draw_variables(self._model, key, (32, 32, 3)), self._optimizer, ema=False
            ),
            # As the step returns the state: otherwise the second epoch would compile again.
            out_shardings=replicated(mesh),
        )

    def run(self, seed: int, left: Callable[[], bool]) -> dict[str, Any] | None:
        """Trains with one seed.

        Args:
            seed: Seed of the weights, the order and the augmentation.
            left: Tells after each epoch if there is time for another.

        Returns:
            The row of the run; None if the time ended before it.
        """
        rng, key, ends = np.random.default_rng(seed), key_data(seed), [time.monotonic()]
        state = self._fresh(jax.random.key(seed))
        count = len(self.train["label"])
        for _ in range(self.epochs):
            order = rng.permutation(count)[: self.steps * self.batch]
            state, right = self._epoch(state, order.reshape(self.steps, self.batch), key)
            right = float(right)
            ends.append(time.monotonic())
            if not left():
                return None
        # The first epoch waits for the compiler.
        steady = np.diff(ends)[1:] if self.epochs > 1 else np.diff(ends)
        return {
            "network": self.name,
            "seed": seed,
            "test error, %": 100 * self._test_error(state),
            "train error, %": 100 * (1 - right),
            "images/s": self.steps * self.batch / float(steady.mean()),
            "seconds": ends[-1] - ends[0],
            "epochs": self.epochs,
        }

    def _test_error(self, state: TrainState) -> float:
        total, count = 0.0, len(self.test["label"])
        for start in range(0, count, EVALUATED):
            batch = {name: values[start : start + EVALUATED] for name, values in self.test.items()}
            weight = jnp.ones(len(batch["label"]), jnp.float32)
            total += float(self._right(state.eval_variables, {**batch, "weight": weight}))
        return 1 - total / count


def rows(
    trainings: list[Training], seeds: int, seconds_left: Callable[[], float]
) -> Iterator[dict[str, Any]]:
    """The rows of all networks with seed 0, then with seed 1, until the time ends.

    A run is started only if the last one of its network would have ended in the time that is left.

    Args:
        trainings: The networks.
        seeds: Most seeds of a network.
        seconds_left: The time that is left.
    """
    took: dict[str, float] = {}
    for seed in range(seeds):
        for training in trainings:
            if seconds_left() < took.get(training.name, 0.0):
                return
            began = time.monotonic()
            row = training.run(seed, lambda: seconds_left() > 0)
            if row is None:
                return
            took[training.name] = time.monotonic() - began
            yield row

"""The same steps on one device and on meshes of eight: how far the numbers are apart.

    python -m experiments.benchmarks.meshes

trains some steps with global batch norm on one virtual CPU device and on each mesh, and compares
all that a step changes: parameters, statistics, optimizer state and average. In float32 after one
step, because rounding is amplified from step to step (5 % after twenty at a rate of 0.1); in
float64 after twenty. The limits are for the parameters. Of larger networks the float32 gradient at
random weights may be some per mille off on one device already, as the row against float64 says:
rounding turns a ReLU on or off here and there. Then it counts the bytes that a device holds of a
state that is divided.
Exits with 1 if a limit is missed. Three minutes on 2 cores with
`--models cifar_seresnet8`; the larger networks take long to compile.
"""

import contextlib
import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import PyTree

from experiments.benchmarks.harness.measure import RESULTS, table, write
from senet_jax.config import OptimizerConfig
from senet_jax.data.config import AugmentConfig
from senet_jax.data.normalization import Normalization
from senet_jax.models.zoo import create_model
from senet_jax.network import Network
from senet_jax.planning.sharding import bytes_of
from senet_jax.tasks.classification import Classification
from senet_jax.training.distributed import mesh as meshes
from senet_jax.training.optimizer import make_optimizer, make_schedule
from senet_jax.training.state import TrainState, draw_variables, init_state, state_of
from senet_jax.training.step import key_data, make_train_step

DEVICES = 8
LIMITS = {"float32": 1e-5, "float64": 1e-9}
STEPS = {"float32": 1, "float64": 20}
SHARE_LIMIT = 1 / 7
"""Share of the bytes of parameters and optimizer state on one of eight devices."""

MESHES = ((8, 1), (2, 4), (1, 8))

RATE = 0.01
"""Learning rate, with momentum 0.9."""

PLAIN: dict[str, Any] = {}
EVERYTHING = {"mixup": 0.2, "label_smoothing": 0.1, "clip_norm": 1.0, "ema_decay": 0.99, "parts": 2}
"""All of a step in which the images of a batch, or all the parameters, meet."""


@dataclasses.dataclass(frozen=True)
class Meshes:
    """Compare meshes of eight devices with one device."""

    models: tuple[str, ...] = ("cifar_seresnet8", "seresnext26t_32x4d", "resnest14d")
    """Names that `senet-jax models` lists."""
    divided: tuple[str, ...] = ("resnet50", "senet154")
    """Networks whose state is divided over eight devices; its bytes are counted."""
    images: int = 32
    """Images of a batch."""
    size: int = 32
    """Side of the images, pixels."""
    out: Path = RESULTS / "meshes" / "cpu.json"
    """The result."""


def trained(
    name: str,
    mesh: tuple[int, int],
    dtype: str,
    *,
    images: int,
    size: int,
    steps: int,
    features: dict[str, Any] | None = None,
    **fields: Any,
) -> TrainState:
    """The state after some steps on random images; its floats have the given precision.

    Args:
        name: Name in the zoo.
        mesh: Sizes of the axes ``data`` and ``fsdp``.
        dtype: "float32" or "float64".
        images: Images of a batch.
        size: Their side, pixels.
        steps: Their number.
        features: As in ``EVERYTHING``.
        **fields: Fields of the network.
    """
    features = features or {}
    precise = jax.enable_x64(True) if dtype == "float64" else contextlib.nullcontext()
    with precise:
        model = create_model(name, num_classes=10, dtype=jnp.dtype(dtype), **fields)
        config = OptimizerConfig(learning_rate=RATE, clip_norm=features.get("clip_norm"))
        optimizer = make_optimizer(config, make_schedule(config, steps, 2))
        grid = meshes.make_mesh(*mesh)
        ema = features.get("ema_decay")

        def draw() -> dict[str, Any]:
            variables = draw_variables(model, jax.random.key(0, impl="rbg"), (size, size, 3))
            return jax.tree.map(lambda x: x.astype(dtype), variables)

        def initial(variables: dict[str, Any]) -> TrainState:
            return state_of(variables, optimizer, ema is not None)

        shardings = meshes.state_shardings(jax.eval_shape(lambda: initial(draw())), grid)
        variables = jax.jit(draw, out_shardings=meshes.replicated(grid))()
        state = jax.jit(initial, out_shardings=shardings)(variables)
        task = Classification(
            features.get("label_smoothing", 0.0), AugmentConfig(mixup=features.get("mixup", 0.0))
        )
        step = make_train_step(
            task,
            Network(model, Normalization((0.5,) * 3, (0.25,) * 3), grid),
            optimizer,
            state_shardings=shardings,
            ema_decay=ema,
            parts=features.get("parts", 1),
        )
        rng = np.random.default_rng(0)
        for _ in range(steps):
            batch = {
                "image": rng.integers(0, 256, (images, size, size, 3), np.uint8),
                "label": rng.integers(0, 10, images, np.int32),
            }
            state, _ = step(state, meshes.to_devices(batch, grid), key_data(0))
        return jax.tree.map(np.asarray, dataclasses.replace(state, step=None))


PARTS = ("params", "batch_stats", "opt_state", "ema")


def apart(state: TrainState, other: TrainState, parts: tuple[str, ...] = PARTS) -> float:
    """The distance of two states: the largest of their parts' distances.

    Each part is a vector; the distance is that of the vectors over the length of the first. After
    one step the optimizer state is the gradient.
    """
    return max(_distance(getattr(state, part), getattr(other, part)) for part in parts)


def _distance(tree: PyTree[np.ndarray], other: PyTree[np.ndarray]) -> float:
    if not jax.tree.leaves(tree):
        return 0.0
    a, b = (
        np.concatenate([np.float64(leaf).ravel() for leaf in jax.tree.leaves(each)])
        for each in (tree, other)
    )
    return float(np.linalg.norm(a - b) / np.linalg.norm(a))


def worst_leaf(state: TrainState, other: TrainState) -> float:
    """The largest difference of two numbers of two states, relative to the largest of their leaf.

    A leaf whose gradient is a sum that nearly cancels, such as a bias, is further apart than the
    rest.
    """

    def of(a: np.ndarray, b: np.ndarray) -> float:
        largest = float(np.abs(a).max())
        return float(np.abs(a - b).max()) / (largest or 1.0)

    pairs = zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True)
    return max(of(a, b) for a, b in pairs)


def share_on_a_device(name: str, fsdp: int) -> tuple[int, int]:
    """Bytes of the parameters and the optimizer state, in all and on one device."""
    optimizer = make_optimizer(OptimizerConfig(), make_schedule(OptimizerConfig(), 1, 1))
    model = create_model(name)
    state = jax.eval_shape(
        lambda: init_state(model, optimizer, jax.random.key(0), (64, 64, 3), ema=False)
    )
    laid_out = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        state,
        meshes.state_shardings(state, meshes.make_mesh(1, fsdp)),
    )
    return bytes_of(jax.tree.leaves((laid_out.params, laid_out.opt_state)))


def _compare(study: Meshes) -> list[dict[str, Any]]:
    rows = []
    cases = [(name, dtype, PLAIN) for name in study.models for dtype in LIMITS]
    cases += [(study.models[0], dtype, EVERYTHING) for dtype in LIMITS]
    for name, dtype, features in cases:
        settings: dict[str, Any] = {
            "images": study.images,
            "size": study.size,
            "steps": STEPS[dtype],
            "features": features,
        }
        one = trained(name, (1, 1), dtype, **settings)
        if dtype == "float32":
            exact = trained(name, (1, 1), "float64", **settings)
            rows.append(
                {
                    "model": name,
                    "with": ", ".join(features) or "-",
                    "against": "1 device, float64",
                    "precision": dtype,
                    "steps": STEPS[dtype],
                    "parameters": f"{apart(one, exact, ('params',)):.1e}",
                    "all of the state": f"{apart(one, exact):.1e}",
                    "worst leaf": f"{worst_leaf(one, exact):.1e}",
                }
            )
        for mesh in MESHES:
            other = trained(name, mesh, dtype, **settings)
            difference = apart(one, other, ("params",))
            row = {
                "model": name,
                "with": ", ".join(features) or "-",
                "against": f"{mesh[0]} x {mesh[1]} devices",
                "precision": dtype,
                "steps": STEPS[dtype],
                "parameters": f"{difference:.1e}",
                "all of the state": f"{apart(one, other):.1e}",
                "worst leaf": f"{worst_leaf(one, other):.1e}",
                "limit": LIMITS[dtype],
                "holds": difference < LIMITS[dtype],
            }
            print(row, flush=True)
            rows.append(row)
    return rows


def _count(study: Meshes) -> list[dict[str, Any]]:
    rows = []
    for name in study.divided:
        whole, held = share_on_a_device(name, DEVICES)
        share = held / whole
        rows.append(
            {
                "model": name,
                "bytes": whole,
                "on one of 8": held,
                "share": share,
                "limit": SHARE_LIMIT,
                "holds": share < SHARE_LIMIT,
            }
        )
    return rows


def main() -> None:
    """Runs the benchmark."""
    study = tyro.cli(Meshes, description=__doc__)
    rows, counts = _compare(study), _count(study)
    write(study.out, rows, divided=counts)
    for found in (rows, counts):
        print(f"\n{table(found, list(found[-1]))}")
    limits = [row["holds"] for row in rows + counts if "holds" in row]
    print(f"\n{sum(limits)} of {len(limits)} limits hold; {study.out}")
    sys.exit(not all(limits))


if __name__ == "__main__":
    # Before jax looks for devices, which it does when it is first used.
    flags = f"--xla_force_host_platform_device_count={DEVICES}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    main()

"""The wait before step 1, for a network of each family, without and with a cache.

    python -m experiments.benchmarks.compile_time

builds the initialisation and the training step as training does, in a fresh process each time:
first with an empty compilation cache, then with what the first left there. Prints the seconds of
importing, of tracing, lowering and compiling each program, and their sum, and how many programs
came from the cache (those that compile in less than a second are not kept). Nothing is run, no
data are read.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from experiments.benchmarks.harness.measure import RESULTS, table, write

FAMILIES = (
    "resnet50",
    "seresnet50",
    "seresnext50_32x4d",
    "senet154",
    "resnest50d",
    "skresnet50",
    "densenet121",
    "vgg16_bn",
    "mobilenet_v1",
    "shufflenet_v1",
    "bninception",
    "inception_v3",
    "inception_resnet_v2",
    "cifar_seresnet110",
)
PHASES = ("trace", "lower", "compile")
COLUMNS = (
    "model",
    "cache",
    "import s",
    *(f"{what} {phase} s" for what in ("init", "step") for phase in PHASES),
    "before step 1 s",
    "cache hits",
)


@dataclasses.dataclass(frozen=True)
class CompileTime:
    """Measure what a user waits before step 1."""

    models: tuple[str, ...] = FAMILIES
    """Names that `senet-jax models` lists."""
    batch: int = 8
    """Images of a step."""
    size: int | None = None
    """Side of the images, pixels; None means the network's own."""
    dtype: str = "float32"
    """Compute precision."""
    out: Path = RESULTS / "compile_time.json"
    """The result."""


def measure(model: str, batch: int, size: int | None, dtype: str) -> list[dict[str, Any]]:
    """The two rows of a network, cold and warm."""
    job = json.dumps([model, batch, size, dtype])
    command = [sys.executable, "-m", "experiments.benchmarks.compile_time", job]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": folder}
        found = []
        for cache in ("cold", "warm"):
            # A CPU prints a wall of warnings when it loads a program.
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, cwd=_ROOT
            )
            if done.returncode:
                raise RuntimeError(f"{model} could not be compiled:\n{done.stderr}")
            found.append({"model": model, "cache": cache, **json.loads(done.stdout)})
    return found


_ROOT = Path(__file__).parents[2]


def _here(name: str, batch: int, size: int | None, dtype: str) -> dict[str, float]:
    """The seconds of each phase, in a process that has done nothing yet."""
    began = time.perf_counter()
    import jax
    import jax.numpy as jnp

    from senet_jax.config import OptimizerConfig
    from senet_jax.data.normalization import NORMALIZATIONS
    from senet_jax.models.zoo import create_model, find
    from senet_jax.network import Network
    from senet_jax.tasks.classification import Classification
    from senet_jax.training.distributed.mesh import make_mesh, replicated
    from senet_jax.training.optimizer import make_optimizer, make_schedule
    from senet_jax.training.state import init_state
    from senet_jax.training.step import key_data, make_train_step

    hits: list[str] = []

    def note(event: str, **_: str | int) -> None:
        if event.endswith("/cache_hits"):
            hits.append(event)

    jax.monitoring.register_event_listener(note)
    mesh = make_mesh(1)
    seconds = {"import s": time.perf_counter() - began}

    def phases(what: str, jitted: Any, *arguments: Any) -> None:
        began = time.perf_counter()
        traced = jitted.trace(*arguments)
        after_trace = time.perf_counter()
        lowered = traced.lower()
        after_lower = time.perf_counter()
        lowered.compile()
        ended = time.perf_counter()
        times = (after_trace - began, after_lower - after_trace, ended - after_lower)
        seconds.update(
            {f"{what} {phase} s": time for phase, time in zip(PHASES, times, strict=True)}
        )

    side = size or find(name).input_size
    model = create_model(name, dtype=jnp.dtype(dtype))
    config = OptimizerConfig()
    optimizer = make_optimizer(config, make_schedule(config, steps_per_epoch=100, epochs=1))

    def initial() -> Any:
        key = jax.random.key(0, impl="rbg")
        return init_state(model, optimizer, key, (side, side, 3), ema=False)

    phases("init", jax.jit(initial, out_shardings=replicated(mesh)))
    network = Network(model, NORMALIZATIONS["imagenet"], mesh)
    step = make_train_step(Classification(), network, optimizer)
    images = jax.ShapeDtypeStruct((batch, side, side, 3), jnp.uint8)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    batch_of = {"image": images, "label": labels}
    phases("step", step, jax.eval_shape(initial), batch_of, key_data(0))
    return {**seconds, "before step 1 s": sum(seconds.values()), "cache hits": len(hits)}


def main() -> None:
    """Runs the benchmark."""
    if sys.argv[1:2] and sys.argv[1].startswith("["):
        print(json.dumps(_here(*json.loads(sys.argv[1]))))
        return
    import tyro

    study = tyro.cli(CompileTime, description=__doc__)
    found: list[dict[str, Any]] = []
    for model in study.models:
        found += measure(model, study.batch, study.size, study.dtype)
        write(study.out, found)
    print(f"{table(found, COLUMNS)}\n\n{study.out}")


if __name__ == "__main__":
    main()

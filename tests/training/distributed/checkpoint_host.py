"""One of two hosts of test_checkpoint_hosts.py: ``python checkpoint_host.py INDEX PORT FOLDER``.

Saves, reads what one process has saved, and meets damaged checkpoints; prints what it came to.
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from senet_jax.config import CheckpointConfig
from senet_jax.training.checkpoints.manager import Checkpoints
from senet_jax.training.distributed.mesh import make_mesh, state_shardings
from senet_jax.training.state import TrainState


def numbers(step):
    """The leaves of the state of a step, of which one is divided over fsdp."""
    wide = np.arange(4096, dtype=np.float32).reshape(64, 64) + step
    return TrainState(np.int32(step), {"w": wide}, {"m": wide[0]}, (wide * 2,), None)


def divided(state, mesh):
    """The state laid out over a mesh."""
    where = state_shardings(state, mesh)
    make = jax.make_array_from_callback
    return jax.tree.map(lambda x, sharding: make(x.shape, sharding, x.__getitem__), state, where)


def abstract(mesh):
    """The shapes and shardings that a state over a mesh is restored into."""
    state = jax.tree.map(jnp.asarray, numbers(0))
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        state,
        state_shardings(state, mesh),
    )


def same(state, step):
    """Tells whether the part of a state that a host holds is that of a step."""
    return all(
        np.array_equal(shard.data, leaf[shard.index])
        for array, leaf in zip(jax.tree.leaves(state), jax.tree.leaves(numbers(step)), strict=True)
        for shard in array.addressable_shards
    )


def main(index, port, folder):
    """Runs as one of two hosts."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", 2, index)
    mesh = make_mesh(1, 4)
    said = {}

    single = Checkpoints(folder / "single")
    said["of one process"] = same(single.restore(7, abstract(mesh)).state, 7)

    checkpoints = Checkpoints(folder / "several", CheckpointConfig(keep_last=4))
    checkpoints.prepare()
    for step in (1, 2, 3, 4):
        checkpoints.save(divided(numbers(step), mesh), {"meter": {}}, {"val/top1": 0.5})
    checkpoints.wait()

    # Files that only the second host cannot read.
    read = checkpoints._reader.restore

    def failing(path, args):
        if index == 1 and path.name == "4":
            raise OSError("this host sees no such file")
        return read(path, args=args)

    checkpoints._reader.restore = failing
    restored = checkpoints.restore_newest(abstract(mesh))
    said["damaged for one"] = [restored.step, same(restored.state, restored.step)]

    # Files that are damaged for both; the first host does it, and both meet before and after.
    checkpoints.prepare()
    if index == 0:
        for file in (folder / "several" / "3" / "state").rglob("*"):
            if file.is_file():
                file.write_bytes(file.read_bytes()[:10])
    checkpoints.prepare()
    restored = checkpoints.restore_newest(abstract(mesh))
    said["damaged for both"] = [restored.step, same(restored.state, restored.step)]
    said["steps"] = checkpoints.steps()
    checkpoints.close()
    print(json.dumps(said))
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))

"""Operations of one image over a batch that a mesh divides, or does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from senet_jax.ops.per_image import per_image
from senet_jax.planning.collectives import by_kind, read_collectives
from senet_jax.training.distributed import mesh as meshes


def halvings(image):
    """The halvings of an image until nothing exceeds one: a loop of its own length."""
    return lax.while_loop(
        lambda state: (state[0] > 1).any(), lambda state: (state[0] / 2, state[1] + 1), (image, 0)
    )[1]


def compiled(function, images, mesh):
    def step(images):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(images)

    sharded = meshes.over_batch(mesh)
    return jax.jit(step, in_shardings=sharded, out_shardings=sharded).lower(images).compile()


def test_a_loop_asks_other_devices_only_without_it():
    images = 2.0 ** jnp.arange(16.0)[:, None]
    own = compiled(per_image(halvings), images, meshes.make_mesh(8))
    assert by_kind(read_collectives(own.as_text())) == {}
    assert own(images).tolist() == list(range(16))
    together = compiled(jax.vmap(halvings), images, meshes.make_mesh(8))
    assert "all-reduce" in by_kind(read_collectives(together.as_text()))


@pytest.mark.parametrize("fsdp", [1, 2])
def test_both_axes_of_the_mesh_divide_the_batch(fsdp):
    images = 2.0 ** jnp.arange(16.0)[:, None]
    own = compiled(per_image(halvings), images, meshes.make_mesh(8 // fsdp, fsdp))
    assert by_kind(read_collectives(own.as_text())) == {}
    assert own(images).tolist() == list(range(16))


def test_a_batch_that_devices_do_not_divide_is_mapped_as_it_is():
    images = 2.0 ** jnp.arange(3.0)[:, None]
    with jax.set_mesh(meshes.make_mesh(8)):
        found = jax.jit(per_image(halvings))(images)
    np.testing.assert_array_equal(found, [0, 1, 2])

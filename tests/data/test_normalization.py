import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.data.normalization import NORMALIZATIONS, normalization
from senet_jax.errors import UsageError
from senet_jax.network import normalize

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 3, 3, 3)).astype(np.uint8)

EXPECTED = {
    "inception": (PIXELS / 255 - 0.5) / 0.5,
    # Blue first, 0 to 255.
    "bninception": PIXELS[..., ::-1].astype(float) - np.array([104.0, 117.0, 128.0]),
    "imagenet": (PIXELS / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
}


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_each_is_what_the_released_weights_were_trained_with(name):
    out = normalize(jnp.asarray(PIXELS), normalization(name, (0.5,) * 3, (0.1,) * 3))
    np.testing.assert_allclose(out, EXPECTED[name], rtol=1e-4, atol=1e-4)


def test_a_data_set_has_its_own_and_others_need_colours():
    assert vars(normalization("dataset", (0.3,), (0.4,))) == {
        "mean": (0.3,),
        "std": (0.4,),
        "bgr": False,
    }
    with pytest.raises(UsageError, match="the images have 1 channel"):
        normalization("inception", (0.3,), (0.4,))
    with pytest.raises(UsageError, match="did you mean inception"):
        normalization("incepton", (0.3,) * 3, (0.4,) * 3)

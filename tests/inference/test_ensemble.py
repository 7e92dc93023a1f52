import dataclasses

import jax
import numpy as np
import pytest

from senet_jax.data.normalization import Normalization
from senet_jax.data.sources import ArraySource
from senet_jax.data.views import Views
from senet_jax.errors import UsageError
from senet_jax.inference.ensemble import Ensemble, Member, log_mean
from senet_jax.models import zoo
from senet_jax.training.distributed.mesh import make_mesh

RNG = np.random.default_rng(0)
SOURCE = ArraySource(
    RNG.integers(0, 256, (21, 12, 12, 3)).astype(np.uint8), RNG.integers(0, 10, 21).astype(np.int32)
)
CENTER, TEN, SMALL = Views(12, crop_pct=1.0), Views(8, "ten-crop", 0.8), Views(6, "ten-crop", 0.7)
COLOURS = Normalization((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


@pytest.fixture
def members(tiny, random_variables):
    """Two networks of different width, input and normalization."""

    def member(width, normalization, *views):
        model = zoo.create_model(tiny.model.name, widths=(width,), stem_width=width)
        images = np.zeros((1, 8, 8, 3), np.float32)
        variables = random_variables(model, images, False, seed=width)
        return Member(f"tiny{width}", model, variables, normalization, views, 10)

    bgr = dataclasses.replace(COLOURS, bgr=True)
    return member(4, COLOURS, TEN, SMALL), member(6, bgr, SMALL)


def softmax(member, view):
    """Mean over the views of a size, image by image, by the definition."""
    apply = jax.jit(lambda x: member.model.apply(member.variables, x, train=False))
    rows = []
    for image in SOURCE.images:
        pixels = (view(image) / 255 - member.normalization.mean) / member.normalization.std
        pixels = pixels[..., ::-1] if member.normalization.bgr else pixels
        rows.append(np.asarray(jax.nn.softmax(apply(np.float32(pixels)))).mean(0))
    return np.stack(rows)


def whole(ensemble, batch_size):
    said = list(ensemble.predict(SOURCE, batch_size))
    assert not any(batch.unreadable for batch in said)
    index, label, log_p = (
        np.concatenate([getattr(batch, name) for batch in said])
        for name in ("index", "label", "log_p")
    )
    np.testing.assert_array_equal(index, np.arange(21))
    np.testing.assert_array_equal(label, SOURCE.labels)
    assert log_p.dtype == np.float64
    return log_p


@pytest.mark.parametrize(("devices", "batch_size"), [(1, 50), (8, 1)])
def test_networks_sizes_and_views_are_averaged_as_probabilities(members, devices, batch_size):
    first, second = members
    expected = (softmax(first, TEN) + softmax(first, SMALL)) / 4 + softmax(second, SMALL) / 2
    ensemble = Ensemble([first, second], make_mesh(devices))
    np.testing.assert_allclose(np.exp(whole(ensemble, batch_size)), expected, atol=1e-6)


def test_alone_a_network_says_its_own_softmax(members):
    member = dataclasses.replace(members[0], views=(CENTER,))
    log_p = whole(Ensemble([member], make_mesh(1)), 8)
    np.testing.assert_allclose(np.exp(log_p), softmax(member, CENTER), rtol=1e-4)


def test_the_mean_of_probabilities_that_no_float_holds():
    a, b = np.array([[-2000.0, 0.0]]), np.array([[-2001.0, -1.0]])
    expected = [[-2000 + np.log((1 + np.exp(-1)) / 2), np.log((1 + np.exp(-1)) / 2)]]
    np.testing.assert_allclose(log_mean([a, b]), expected, rtol=1e-12)
    assert log_mean([a]) is a


def test_networks_of_other_classes_or_channels_are_refused(members):
    first, second = members
    with pytest.raises(UsageError, match="tiny4 has 10 classes and tiny6 9"):
        Ensemble([first, dataclasses.replace(second, classes=9)], make_mesh(1))
    grey = dataclasses.replace(second, normalization=Normalization((0.5,), (0.2,)))
    with pytest.raises(UsageError, match=r"tiny4 takes images of 3 channel\(s\) and tiny6 of 1"):
        Ensemble([first, grey], make_mesh(1))

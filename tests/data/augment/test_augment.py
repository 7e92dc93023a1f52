import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.data.augment.small_images import augment

FILL = np.array([7, 8, 9], np.uint8)
# Every pixel of an image has a value of its own, so that a crop tells where it comes from.
IMAGES = np.stack([np.arange(10, 10 + 5 * 6).reshape(5, 6)] * 3, axis=-1)[None].astype(np.uint8)


def many(**fields):
    keys = jax.random.split(jax.random.key(0), 400)
    one = jax.jit(lambda key: augment(jnp.asarray(IMAGES), key, fill=FILL, **fields)[0])
    return np.asarray(jax.lax.map(one, keys))


def test_without_changes_the_images_are_the_same():
    out = augment(jnp.asarray(IMAGES), jax.random.key(0), fill=FILL)
    assert np.array_equal(out, IMAGES)


def test_crops_are_equally_likely_windows_of_the_padded_image():
    padded = np.empty((9, 10, 3), np.uint8)
    padded[...] = FILL
    padded[2:7, 2:8] = IMAGES[0]
    windows = {
        padded[top : top + 5, left : left + 6].tobytes(): (top, left)
        for top in range(5)
        for left in range(5)
    }
    seen = [windows[crop.tobytes()] for crop in many(pad=2)]
    counts = np.bincount([5 * top + left for top, left in seen], minlength=25)
    # 16 are expected of each; the chance that a fair draw leaves these bounds is below 1e-3.
    assert counts.min() >= 3
    assert counts.max() <= 36


def test_flip_mirrors_about_half_and_nothing_else():
    out = many(flip=True)
    same = [np.array_equal(image, IMAGES[0]) for image in out]
    mirrored = [np.array_equal(image, IMAGES[0][:, ::-1]) for image in out]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert 150 < sum(mirrored) < 250


def test_cutout_is_a_square_around_a_pixel_clipped_at_the_edge():
    side, seen = 3, set()
    for image in many(cutout=side):
        cut = (image == FILL).all(axis=-1)
        assert np.array_equal(image[~cut], IMAGES[0][~cut])
        seen.add(cut.tobytes())
    expected = set()
    for row in range(5):
        for column in range(6):
            mask = np.zeros((5, 6), bool)
            mask[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
            expected.add(mask.tobytes())
    assert seen == expected


def test_the_key_determines_the_batch_and_images_differ():
    images = jnp.asarray(np.repeat(IMAGES, 8, axis=0))

    def draw(seed):
        return np.asarray(augment(images, jax.random.key(seed), fill=FILL, pad=2, flip=True))

    assert np.array_equal(draw(0), draw(0))
    assert not np.array_equal(draw(0), draw(1))
    assert len({image.tobytes() for image in draw(0)}) > 1


@pytest.mark.parametrize("channels", [1, 4])
def test_any_number_of_channels(channels):
    images = jnp.zeros((2, 4, 4, channels), jnp.uint8)
    fill = np.zeros(channels, np.uint8)
    out = augment(images, jax.random.key(0), fill=fill, pad=1, flip=True, cutout=2)
    assert out.shape == images.shape
    assert out.dtype == jnp.uint8

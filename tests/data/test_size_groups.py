import numpy as np
import pytest

from senet_jax.data.size_groups import MULTIPLE, size_groups


def padding(sizes, groups):
    return sum(
        len(images) * height * width - sizes[images].prod(1).sum()
        for (height, width), images in groups
    )


def drawn(count, seed=0, least=10, greatest=40):
    return np.random.default_rng(seed).integers(least, greatest, (count, 2))


@pytest.mark.parametrize("most", [1, 2, 5, 40, 1000])
@pytest.mark.parametrize("count", [1, 30, 300])
def test_every_image_is_in_one_group_that_holds_it(count, most):
    sizes = drawn(count)
    groups = size_groups(sizes, most)
    assert len(groups) <= most
    assert sorted(np.concatenate([images for _, images in groups]).tolist()) == list(range(count))
    for shape, images in groups:
        assert (sizes[images] <= shape).all()
        assert (np.diff(images) > 0).all()


def test_few_sizes_are_not_padded():
    sizes = np.array([[4, 6], [6, 4], [4, 6], [5, 5]])
    groups = [(shape, images.tolist()) for shape, images in size_groups(sizes, 3)]
    assert groups == [((4, 6), [0, 2]), ((5, 5), [3]), ((6, 4), [1])]


def test_a_group_is_no_larger_than_its_images_need():
    sizes = drawn(50)
    for shape, images in size_groups(sizes, 6):
        assert sizes[images].max(0).tolist() == list(shape)


def test_the_cheapest_groups_are_joined():
    # One wide image costs less among the tall ones than the many tall among the wide.
    sizes = np.array([[100, 10]] * 10 + [[10, 100]] * 10 + [[100, 12]] + [[12, 100]])
    groups = {shape: len(images) for shape, images in size_groups(sizes, 2)}
    assert groups == {(100, 12): 11, (12, 100): 11}


def test_more_groups_pad_less():
    sizes = drawn(60, seed=1)
    costs = [padding(sizes, size_groups(sizes, most)) for most in (1, 2, 4, 8, 60)]
    assert costs == sorted(costs, reverse=True)
    assert costs[3] < costs[0] / 4
    assert costs[-1] == 0


def test_very_many_sizes_are_rounded_up_at_first():
    sizes = drawn(2000, least=100, greatest=900)
    for most, share in ((8, 0.8), (40, 0.35)):
        groups = size_groups(sizes, most)
        assert len(groups) == most
        assert all(side % MULTIPLE == 0 for shape, _ in groups for side in shape)
        assert padding(sizes, groups) < share * sizes.prod(1).sum()

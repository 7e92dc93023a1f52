from collections import Counter

import numpy as np
import pytest
from PIL import Image

from senet_jax.data.augment import policies
from senet_jax.data.augment.policies import (
    AUTOAUGMENT_AMOUNTS,
    AUTOAUGMENT_IMAGENET,
    RANDAUGMENT_AMOUNTS,
    autoaugment,
    randaugment,
)

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8))


NAMES = {*AUTOAUGMENT_AMOUNTS, *RANDAUGMENT_AMOUNTS}


@pytest.fixture
def recorded(monkeypatch):
    """Operations that say their name and amount, and do nothing."""
    calls = []

    def recorder(name):
        def operation(image, amount):
            calls.append((name, amount))
            return image

        return operation

    monkeypatch.setattr(policies, "OPERATIONS", {name: recorder(name) for name in NAMES})
    return calls


def test_autoaugment_is_the_published_table():
    steps = [step for sub_policy in AUTOAUGMENT_IMAGENET for step in sub_policy]
    assert len(AUTOAUGMENT_IMAGENET) == 25
    assert Counter(name for name, _, _ in steps) == {
        "Equalize": 17,
        "Solarize": 7,
        "Rotate": 6,
        "Color": 6,
        "Posterize": 5,
        "Invert": 3,
        "AutoContrast": 2,
        "Contrast": 2,
        "Sharpness": 1,
        "ShearX": 1,
    }
    assert sum(probability for _, probability, _ in steps) == pytest.approx(31.0)
    assert sum(magnitude for _, _, magnitude in steps) == 287
    # UDA's public copy of the policy leaves these five out.
    repeated = [AUTOAUGMENT_IMAGENET[index] for index in (4, 1, 13, 14, 2)]
    assert list(AUTOAUGMENT_IMAGENET[20:]) == repeated


@pytest.mark.parametrize(
    ("name", "magnitude", "amount"),
    [
        ("Rotate", 9, 27.0),
        ("ShearX", 5, 0.15),
        ("Posterize", 8, 7),
        ("Posterize", 5, 6),
        ("Solarize", 5, 128),
        ("Solarize", 8, 204),
        ("Color", 0, 0.1),
        ("Contrast", 8, 1.54),
        ("Sharpness", 7, 1.36),
    ],
)
def test_autoaugment_amounts_are_in_the_ranges_of_the_paper(name, magnitude, amount):
    assert AUTOAUGMENT_AMOUNTS[name](magnitude, 1) == pytest.approx(amount)
    mirrored = -amount if name in ("Rotate", "ShearX") else amount
    assert AUTOAUGMENT_AMOUNTS[name](magnitude, -1) == pytest.approx(mirrored)


def test_autoaugment_draws_with_the_published_probabilities(recorded):
    rng, draws = np.random.default_rng(0), 10_000
    for _ in range(draws):
        autoaugment(IMAGE, rng)
    expected = Counter()
    for sub_policy in AUTOAUGMENT_IMAGENET:
        for name, probability, _ in sub_policy:
            expected[name] += probability / 25 * draws
    seen = Counter(name for name, _ in recorded)
    assert seen.keys() == expected.keys()
    for name, count in expected.items():
        # Each is a sum of a few binomials of variance at most its mean: four deviations.
        assert abs(seen[name] - count) < 4 * count**0.5
    turns = [amount for name, amount in recorded if name == "Rotate"]
    assert 0.45 < np.mean(np.array(turns) > 0) < 0.55


def test_autoaugment_applies_both_operations_in_order(recorded):
    rng, pairs = np.random.default_rng(0), set()
    for _ in range(2000):
        autoaugment(IMAGE, rng)
        pairs.add(tuple(name for name, _ in recorded))
        recorded.clear()
    names = {tuple(name for name, _, _ in sub_policy) for sub_policy in AUTOAUGMENT_IMAGENET}
    # One or none of the two operations is possible too; where both are applied, they are a row.
    assert {pair for pair in pairs if len(pair) == 2} == names


def test_randaugment_has_the_14_operations_of_the_paper():
    assert set(RANDAUGMENT_AMOUNTS) == {
        "Identity",
        "AutoContrast",
        "Equalize",
        "Rotate",
        "Solarize",
        "Color",
        "Posterize",
        "Contrast",
        "Brightness",
        "Sharpness",
        "ShearX",
        "ShearY",
        "TranslateX",
        "TranslateY",
    }


@pytest.mark.parametrize(
    ("name", "none", "twelve", "thirty"),
    [
        ("Rotate", 0, 12, 30),
        ("ShearY", 0, 0.12, 0.3),
        ("TranslateX", 0, 0.4 * 150 / 331, 150 / 331),
        ("Posterize", 8, 6, 4),
        ("Solarize", 256, 0.6 * 256, 0),
        ("Brightness", 1, 1.36, 1.9),
    ],
)
def test_randaugment_amounts_go_from_none_to_the_strongest(name, none, twelve, thirty):
    amount = RANDAUGMENT_AMOUNTS[name]
    for magnitude, expected in ((0, none), (12, twelve), (30, thirty)):
        assert amount(magnitude, 1) == pytest.approx(expected)
        if name in ("Posterize", "Solarize"):
            assert amount(magnitude, -1) == amount(magnitude, 1)
        else:
            assert amount(magnitude, -1) - none == pytest.approx(none - amount(magnitude, 1))


def test_randaugment_of_magnitude_0_changes_the_histogram_alone():
    neutral = {"AutoContrast", "Equalize"}
    for name in set(RANDAUGMENT_AMOUNTS) - neutral:
        for sign in (-1, 1):
            amount = RANDAUGMENT_AMOUNTS[name](0, sign)
            assert np.array_equal(policies.OPERATIONS[name](IMAGE, amount), IMAGE), name


@pytest.mark.parametrize("ops", [0, 1, 2, 5])
def test_randaugment_draws_so_many_operations_all_alike(recorded, ops):
    rng, draws = np.random.default_rng(0), 3000
    for _ in range(draws):
        randaugment(IMAGE, rng, ops=ops, magnitude=12)
    assert len(recorded) == ops * draws
    counts = Counter(name for name, _ in recorded)
    for name in RANDAUGMENT_AMOUNTS:
        mean = ops * draws / 14
        assert abs(counts[name] - mean) <= 4 * mean**0.5
    assert {abs(amount) for name, amount in recorded if name == "Rotate"} <= {12.0}


def test_policies_follow_the_generator_and_keep_the_size():
    for change in (autoaugment, lambda image, rng: randaugment(image, rng, ops=2, magnitude=9)):
        one, other, again = (
            np.asarray(change(IMAGE, np.random.default_rng(seed))) for seed in (1, 2, 1)
        )
        assert one.shape == other.shape == (20, 20, 3)
        assert one.dtype == np.uint8
        assert np.array_equal(one, again)
        assert not np.array_equal(one, other)

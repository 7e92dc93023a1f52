import pytest

from senet_jax.data.class_names import IMAGENET_SYNSETS, find_label
from senet_jax.errors import UsageError

IMAGENET = list(IMAGENET_SYNSETS)


@pytest.mark.parametrize("name", ["n01443537", "goldfish", "Carassius auratus"])
def test_a_class_is_found_by_its_synset_and_its_words(name):
    # The second class of ImageNet's 1,000.
    assert find_label(name, IMAGENET) == 1


def test_a_name_of_none_or_of_several_classes_is_refused():
    assert find_label("3", ["1", "3"]) == 1
    with pytest.raises(UsageError, match="unknown class 'goldfsh': did you mean goldfish"):
        find_label("goldfsh", IMAGENET)
    # The red one and the giant one.
    with pytest.raises(UsageError, match="called panda: give n02509815 or n02510455"):
        find_label("panda", IMAGENET)


def test_a_name_that_looks_like_that_of_a_class_is_said():
    assert find_label("caf\u00e9", ["x", "caf\u00e9"]) == 1
    with pytest.raises(UsageError, match=r"composed otherwise .*\('cafe\\u0301' and 'caf\\xe9'\)"):
        find_label("cafe\u0301", ["x", "caf\u00e9"])


def test_a_whole_name_comes_before_a_word_of_another():
    assert IMAGENET[find_label("partridge", IMAGENET)] == "n01807496"

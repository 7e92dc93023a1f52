import pytest

from senet_jax.errors import UsageError, choose

GATES = ("sigmoid", "hard_sigmoid", "tanh", "relu")


@pytest.mark.parametrize("name", GATES)
def test_a_valid_name_comes_back(name):
    assert choose("gate", name, GATES) == name


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sigmiod", "did you mean sigmoid or hard_sigmoid?"),
        ("tan", "did you mean tanh?"),
        ("Relu", "did you mean relu?"),
        ("softmax", "choose from hard_sigmoid, relu, sigmoid, tanh."),
        ("", "choose from hard_sigmoid, relu, sigmoid, tanh."),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name, hint):
    with pytest.raises(UsageError) as error:
        choose("gate", name, GATES)
    assert str(error.value) == f"unknown gate {name!r}: {hint}"


def test_names_may_come_from_an_iterator_that_can_be_read_once():
    with pytest.raises(UsageError, match="did you mean tanh"):
        choose("gate", "tahn", iter(GATES))


def test_at_most_four_names_are_suggested():
    with pytest.raises(UsageError) as error:
        choose("model", "resnet", [f"resnet{depth}" for depth in range(10, 20)])
    assert str(error.value).count(" or ") == 3


def test_of_many_names_three_are_given_and_their_number():
    with pytest.raises(UsageError) as error:
        choose("class", "zzz", [f"class{number}" for number in range(1000)])
    assert str(error.value).startswith("unknown class 'zzz': there are 1000, such as class")
    assert str(error.value).count(", ") == 3

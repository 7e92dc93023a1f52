"""The table of costs. ``python -m tests.models.test_cost_table`` writes it anew (minutes)."""

import csv
import sys

import pytest

from senet_jax.models import cost_table, zoo
from senet_jax.models.cost import Cost
from senet_jax.models.cost_table import TABLE, count, fingerprint, write_table, zoo_cost
from senet_jax.models.resnet import SE

# One of each family that is counted in less than a second.
FEW = (
    *("cifar_seresnet8", "resnet18", "skresnet18", "vgg11", "mobilenet_v1_025", "shufflenet_v1_g1"),
    *("cifar_inception", "cifar_preact_resnet110", "cifar_shake_shake26_2x32d"),
)


@pytest.fixture
def counted(monkeypatch):
    """The names of the networks that are counted and not looked up."""
    names = []

    def counting(name):
        names.append(name)
        return Cost(0, 0)

    monkeypatch.setattr(cost_table, "count", counting)
    return names


def test_the_table_has_the_networks_as_they_are():
    with TABLE.open(newline="") as file:
        rows = [(x["name"], int(x["input_size"]), x["fingerprint"]) for x in csv.DictReader(file)]
    entries = zoo.ZOO.items()
    assert rows == [(name, entry.input_size, fingerprint(entry)) for name, entry in entries]


@pytest.mark.parametrize("name", FEW)
def test_a_row_is_what_is_counted(name):
    assert zoo_cost(name) == count(name)


@pytest.mark.slow
def test_every_row_is_what_is_counted():
    assert {name: zoo_cost(name) for name in zoo.ZOO} == {name: count(name) for name in zoo.ZOO}


def test_every_network_of_the_zoo_is_looked_up(counted):
    assert all(zoo_cost(name).params for name in zoo.ZOO)
    assert counted == []


@pytest.mark.parametrize(
    ("own", "size"),
    [
        ({"attention": SE}, 224),
        ({"num_classes": 10}, 224),
        ({}, 160),
    ],
)
def test_a_network_that_has_changed_is_counted(counted, monkeypatch, own, size):
    entry = zoo.ZOO["resnet18"]
    changed = zoo.ZooEntry(entry.family, {**entry.own, **own}, size)
    monkeypatch.setitem(zoo.ZOO, "resnet18", changed)
    zoo_cost("resnet18")
    assert counted == ["resnet18"]


def test_a_composed_network_without_a_row_is_counted(counted):
    zoo_cost("fcn_cifar_resnet8")
    assert counted == ["fcn_cifar_resnet8"]


def test_two_heads_on_one_backbone_differ():
    heads = ("fasterrcnn", "maskrcnn")
    digests = {fingerprint(zoo.find(f"{head}_resnet18_fpn")) for head in heads}
    digests |= {fingerprint(zoo.find(name)) for name in ("resnet18", "fcn_resnet18")}
    assert len(digests) == 4


if __name__ == "__main__":
    found = []
    for name in zoo.ZOO:
        found.append((name, count(name)))
        print(f"{name}: {found[-1][1]}", file=sys.stderr, flush=True)
    write_table(found)

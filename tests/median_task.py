"""A task that is not classification, as far as reports and records ask: the median error in m."""

from typing import ClassVar

import pytest

from senet_jax import tasks
from senet_jax.tasks.classification import Classification
from senet_jax.tasks.metrics import Metric


class Median(Classification):
    """It has the network of classification, and metrics of its own; the lower is the better."""

    name: ClassVar[str] = "median"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("median", "median error", False, unit="m"),
        Metric("loss", "loss", False),
    )


@pytest.fixture
def median(monkeypatch):
    """The task "median" is one of the tasks."""
    monkeypatch.setitem(tasks.TASKS, Median.name, f"{__name__}:Median")
    return Median

"""Hostile values in every field of the config: trained, or refused in one sentence before a write.

The loop is replaced by one that ends at once, so that what is accepted takes no minutes; setting
up the run and tracing its step, as training does before it writes, are as they are.
"""

import dataclasses
import math
import signal
import types
import typing
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest

from senet_jax import cli
from senet_jax.command_line.invocation import Invocation
from senet_jax.errors import ExitCode
from senet_jax.models import zoo
from senet_jax.training import loop
from tests.tiny_runs import TINY

BASE = (
    *("demo", "--run-dir", "run", "--model.name", "tiny", "--mesh.data", "1"),
    *("--epochs", "2", "--data.batch-size", "64", "--data.eval-batch-size", "64"),
)
QUICK = hypothesis.settings(
    deadline=None,
    derandomize=True,
    # An example is a flag and its value: there is little to shrink, and each try takes a second.
    phases=(hypothesis.Phase.generate,),
    suppress_health_check=list(hypothesis.HealthCheck),
)
LIMIT_S = 60
"""Seconds after which a command hangs; most take less than one."""

INTEGERS = (0, -1, 1, 2, 3, 7, 48, 65, 2**15, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, -(2**63))
FLOATS = (math.nan, math.inf, -math.inf, 1e308, -1e308, 1e-308, 5e-324, 0.0, -0.0, 0.5, 1.0, 1e30)
TEXTS = (
    *("", " ", "none", "None", "../..", ".", "/", "~", "~nobody-x", "gs:/x", "gs://", "s3://b/x"),
    *("hf-hub:", "/dev/null", "/dev/null/x", "x" * 300, "é", "\u202e", "\x1b[2J", "=1+1", "\udcff"),
    *("-1", "%s", "{}", "*", "[", "conv*", "cifar10", "digits", "se", "A\nB"),
)


def leaves(config, prefix=""):
    """Every flag with the types of its field, those in tuples too."""
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        hint = hints[field.name]
        name = "" if field.name == "config" else f"{field.name}."
        if dataclasses.is_dataclass(hint):
            yield from leaves(hint, prefix + name)
        else:
            yield f"--{prefix}{field.name}".replace("_", "-"), hint


def parts(hint):
    """The types within a hint, and whether several values may be given."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        found = [parts(each) for each in arguments]
        return set().union(*(kinds for kinds, _ in found)), any(many for _, many in found)
    if origin is tuple:
        return parts(arguments[0])[0], True
    return {hint}, False


# With these the command does something else than to train, or asks other hosts.
LEFT_OUT = {"--topology", "--accelerators", "--dry-run", "--show-sharding"}
LEFT_OUT |= {"--hosts.coordinator", "--hosts.count", "--hosts.index", "--mesh.fsdp"}
FIELDS = {flag: hint for flag, hint in leaves(Invocation) if flag not in LEFT_OUT}


@st.composite
def assignments(draw):
    """A flag and hostile values of its type, or, now and then, of another."""
    flag = draw(st.sampled_from(sorted(FIELDS)))
    kinds, many = parts(FIELDS[flag])
    numbers = st.one_of(st.sampled_from(INTEGERS), st.integers(-10, 100)).map(str)
    reals = st.one_of(st.sampled_from(FLOATS), st.floats(-10, 100)).map(repr)
    texts = st.one_of(st.sampled_from(TEXTS), st.text(max_size=8).filter(lambda t: "\0" not in t))
    options = []
    if int in kinds:
        options.append(numbers)
    if float in kinds:
        options += [numbers, reals]
    if bool in kinds:
        options.append(st.sampled_from(("True", "False", "maybe")))
    choices = [each for kind in kinds for each in typing.get_args(kind)]
    if choices:
        options.append(st.sampled_from([*map(str, choices)]))
    if kinds & {str, Path} or not options:
        options.append(texts)
    value = st.one_of(*options, st.just("None"))
    if many:
        values = draw(st.one_of(st.lists(value, max_size=4), value.map(lambda v: [v] * 40)))
    else:
        values = [draw(value)]
    return flag, values


@contextmanager
def time_limit():
    def stop(number, frame):
        raise TimeoutError(f"no end within {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Accepted(Exception):
    """The run is set up and traced, and would now write."""


@pytest.fixture
def command(monkeypatch, capfd):
    """Runs the command line up to where the folder of the run is made."""
    monkeypatch.setitem(zoo.ZOO, "tiny", TINY)
    monkeypatch.setattr(loop, "barrier", lambda place: (_ for _ in ()).throw(Accepted))

    def run(folder, flags):
        """Tells whether the config is accepted; fails if it is neither that nor refused well."""
        monkeypatch.chdir(folder)
        capfd.readouterr()
        try:
            with time_limit():
                code = cli.main(["train", *BASE, *flags])
        except Accepted:
            return True
        except SystemExit as stopped:  # tyro has refused a value of another type
            code = stopped.code
        err = capfd.readouterr().err
        assert code == ExitCode.BAD_INPUT, (flags, code, err)
        assert "Traceback" not in err, (flags, err)
        assert err.strip(), flags
        if err.startswith("senet-jax: error: "):
            assert err.count("\n") == 1, (flags, err)
        return False

    return run


@pytest.fixture
def folder(tmp_path_factory):
    """Makes folders in which a write would be seen."""
    return lambda: tmp_path_factory.mktemp("fuzz")


@pytest.mark.slow
@hypothesis.settings(QUICK, max_examples=600)
@hypothesis.given(assignment=assignments())
def test_every_value_is_trained_or_refused(assignment, command, folder):
    place = folder()
    flag, values = assignment
    flags = [f"{flag}={values[0]}"] if len(values) == 1 else [flag, *values]
    command(place, flags)
    assert list(place.iterdir()) == [], assignment


@pytest.mark.slow
@hypothesis.settings(QUICK, max_examples=200)
@hypothesis.given(chosen=st.lists(assignments(), min_size=2, max_size=4, unique_by=lambda a: a[0]))
def test_values_together_are_trained_or_refused(chosen, command, folder):
    place = folder()
    flags = []
    for flag, values in chosen:
        flags += [f"{flag}={values[0]}"] if len(values) == 1 else [flag, *values]
    command(place, flags)
    assert list(place.iterdir()) == [], chosen


@pytest.mark.slow
@pytest.mark.parametrize("flag", [f for f, t in FIELDS.items() if parts(t)[0] & {int, float}])
def test_no_field_takes_a_number_that_nothing_holds(flag, command, folder):
    place = folder()
    # As a float 2**63 is large, but held.
    large = () if float in parts(FIELDS[flag])[0] else (2**63,)
    for value in (*large, -(2**63), math.nan, math.inf, -math.inf, 1e308, -1e308):
        assert not command(place, [f"{flag}={value!r}"]), value
    assert list(place.iterdir()) == []


def test_the_untouched_command_is_accepted(command, folder):
    place = folder()
    assert command(place, [])
    assert list(place.iterdir()) == []

"""Channels ranked by their gates, and what is lost when the lowest are shut.

A channel is shut by a gate of zero: nothing of it goes on, though the other gates still see it.
Against the ranking stands a random choice of as many channels, without which a small loss would
prove nothing.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from senet_jax.analysis.gates.excitation import Gates
from senet_jax.analysis.gates.probe import Answers, Probe
from senet_jax.analysis.gates.sites import zeroed
from senet_jax.errors import UsageError
from senet_jax.text import markdown_table

PERCENTS = (10.0, 25.0, 50.0, 75.0)
"""Shares of the channels that are shut."""

SEEDS = 3
"""Random choices that a ranking is compared with."""

GATE, OUTPUT, RANDOM = "gate", "output", "random"
"""Rankings: by the mean gate (its magnitude, if it may be negative); by the mean magnitude of what
leaves the attention, gate times what it scales; by chance."""


@dataclasses.dataclass(frozen=True)
class Pruned:
    """Some channels of some blocks shut."""

    what: str
    """Name of a block, or "all"."""
    percent: float
    """Share of the channels of each of these blocks, %."""
    channels: int
    """The number of channels that are shut."""
    answers: dict[str, list[Answers]]
    """By ranking; of the random one, one for each seed."""


@dataclasses.dataclass(frozen=True)
class PruningReport:
    """The cost of shutting channels."""

    whole: Answers
    """The network as it is."""
    rows: list[Pruned]


def prune(
    probe: Probe,
    gates: Sequence[Gates],
    alone: Sequence[str] = (),
    percents: Sequence[float] = PERCENTS,
) -> PruningReport:
    """Measures the error with the lowest channels of all blocks shut, and of single blocks.

    Of blocks whose paths are weighted against each other a path of a channel is what is shut, and
    there is no ranking by what leaves them. Gates that all channels share are left as they are.

    Args:
        probe: The network and the images.
        gates: Its gates, of the same images or of others.
        alone: Names of the blocks of which each is pruned while the others are whole.
        percents: Shares of the channels of a block, above 0, at most 100; rounded to channels.

    Raises:
        UsageError: A share out of range.
    """
    check_percents(percents)
    gates = [g for g in gates if g.block.shape[-1] > 1]
    by_name = {g.block.name: g for g in gates}
    parts = [(name, [by_name[name]]) for name in alone if name in by_name]
    if len(gates) > 1 or not parts:
        parts.insert(0, ("all", list(gates)))
    cases = [
        (what, part, percent, ranking, seed)
        for what, part in parts
        for percent in percents
        for ranking in _rankings(part)
        for seed in range(SEEDS if ranking == RANDOM else 1)
    ]
    shut = [_shut(part, percent, ranking, seed) for _, part, percent, ranking, seed in cases]
    edits = [{name: zeroed(which) for name, which in case.items()} for case in shut]
    whole, *answers = probe.answers([{}, *edits])
    rows: dict[tuple[str, float], Pruned] = {}
    for (what, _, percent, ranking, _), which, correct in zip(cases, shut, answers, strict=True):
        channels = sum(int(one.sum()) for one in which.values())
        row = rows.setdefault((what, percent), Pruned(what, percent, channels, {}))
        row.answers.setdefault(ranking, []).append(correct)
    return PruningReport(whole, list(rows.values()))


def check_percents(percents: Sequence[float]) -> None:
    """Checks that shares are percentages.

    Raises:
        UsageError: One is not above 0 and at most 100.
    """
    for percent in percents:
        if not 0 < percent <= 100:
            raise UsageError(
                f"a share of channels must be above 0 and at most 100 %, not {percent:g}."
            )


def _rankings(part: Sequence[Gates]) -> tuple[str, ...]:
    paths = any(len(g.block.shape) > 1 or g.output.shape != g.mean.shape for g in part)
    return (GATE, RANDOM) if paths else (GATE, OUTPUT, RANDOM)


def rank(
    gates: Gates, ranking: str, seed: int = 0
) -> Float[np.ndarray, "*paths c"] | Float[np.ndarray, " c"]:
    """The values by which the channels of a block are ordered; the lowest goes first.

    Args:
        gates: The gates of the block.
        ranking: ``GATE``, ``OUTPUT`` or ``RANDOM``.
        seed: The seed of the random order.
    """
    if ranking == GATE:
        return np.abs(gates.mean)
    if ranking == OUTPUT:
        return gates.output
    # Blocks of one width must not lose the same channels.
    name = [*gates.block.name.encode()]
    return np.random.default_rng([seed, *name]).random(gates.mean.shape)


def _shut(
    part: Sequence[Gates], percent: float, ranking: str, seed: int
) -> dict[str, Bool[np.ndarray, "*paths c"]]:
    return {g.block.name: lowest(rank(g, ranking, seed), percent) for g in part}


def lowest(scores: Float[np.ndarray, "*paths c"], percent: float) -> Bool[np.ndarray, "*paths c"]:
    """Marks the lowest ``percent`` of some scores; ties go to the first."""
    which = np.zeros(scores.size, bool)
    count = round(percent / 100 * scores.size)
    which[np.argsort(scores, axis=None, kind="stable")[:count]] = True
    return which.reshape(scores.shape)


HEADER = (
    "block",
    "channels shut",
    "lowest gate: error (%)",
    "lowest gate x input: error (%)",
    "random: error (%)",
)


def pruning_markdown(report: PruningReport) -> str:
    """The table and what one must know to read it."""
    rows = [
        (
            row.what,
            f"{row.channels:,} ({row.percent:g} %)",
            *(_errors(row.answers.get(ranking, [])) for ranking in (GATE, OUTPUT, RANDOM)),
        )
        for row in report.rows
    ]
    return (
        f"{markdown_table(HEADER, rows)}\n\n"
        f"As it is, the network has {report.whole.error:.2f} % error on "
        f"{len(report.whole.right):,} images. Channels are shut by a gate of zero, and nothing "
        f"was trained again; random: mean of {SEEDS} choices, and the least and the largest error."
    )


def _errors(answers: Sequence[Answers]) -> str:
    errors = [one.error for one in answers]
    if len(errors) < 2:
        return f"{errors[0]:.2f}" if errors else ""
    return f"{np.mean(errors):.2f} [{min(errors):.2f}, {max(errors):.2f}]"


def pruning_csv(report: PruningReport) -> list[tuple[object, ...]]:
    """The numbers, unrounded: a line for each choice of channels, the whole network first."""
    head = ("block", "percent", "channels", "ranking", "seed", "top1_error", "loss", "images")
    whole = report.whole
    return [
        head,
        ("", 0.0, 0, "", 0, whole.error, float(np.mean(whole.loss)), len(whole.right)),
        *(
            (
                row.what,
                row.percent,
                row.channels,
                ranking,
                seed,
                one.error,
                float(np.mean(one.loss)),
                len(one.right),
            )
            for row in report.rows
            for ranking, answers in row.answers.items()
            for seed, one in enumerate(answers)
        ),
    ]

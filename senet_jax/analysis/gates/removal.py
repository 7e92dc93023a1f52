"""The cost of taking the attention out of a part of a network, without training it again.

Two things can stand in for a gate that is gone: nothing (a gate of 1, or equal weights of the
paths) and its mean over the images, a constant for each channel that folds into the batch norm or
the convolution before it. Both save all parameters of the gate.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from senet_jax.analysis.gates.excitation import Gates
from senet_jax.analysis.gates.probe import Answers, Probe
from senet_jax.analysis.gates.sites import constant, params_saved
from senet_jax.analysis.statistics import Estimate, estimate
from senet_jax.text import markdown_table


@dataclasses.dataclass(frozen=True)
class Removal:
    """The attention of some blocks taken out."""

    what: str
    """"stage 5", "stage5/block3", or "all"."""
    params: int
    """Parameters that this saves."""
    neutral: Answers
    """With the gates that do nothing."""
    mean: Answers
    """With the mean gates."""


@dataclasses.dataclass(frozen=True)
class RemovalReport:
    """The worth of each part's attention."""

    whole: Answers
    """The network as it is."""
    params: int
    """Its trainable parameters."""
    gate_params: int
    """Trainable parameters that compute gates."""
    rows: list[Removal]

    @property
    def plain_params(self) -> int:
        """Parameters of the network without any gates."""
        return self.params - self.gate_params


def remove_attention(probe: Probe, gates: Sequence[Gates]) -> RemovalReport:
    """Measures the error without the attention of each stage, each block of the last, and of all.

    Args:
        probe: The network and the images.
        gates: Its gates, whose means take their places; of the same images or of others.
    """
    parts, blocks = _parts(gates), [g.block for g in gates]
    neutral = [{g.block.name: constant(g.block.neutral) for g in part} for _, part in parts]
    mean = [{g.block.name: constant(g.mean) for g in part} for _, part in parts]
    whole, *answers = probe.answers([{}, *neutral, *mean])
    rows = [
        Removal(what, params_saved(blocks, [g.block for g in part]), *without)
        for (what, part), *without in zip(
            parts, answers[: len(parts)], answers[len(parts) :], strict=True
        )
    ]
    return RemovalReport(whole, probe.params, params_saved(blocks, blocks), rows)


def _parts(gates: Sequence[Gates]) -> list[tuple[str, list[Gates]]]:
    stages = sorted({g.block.stage for g in gates})
    parts = [(f"stage {stage}", [g for g in gates if g.block.stage == stage]) for stage in stages]
    last = parts[-1][1]
    if len(last) > 1:
        parts += [(g.block.name, [g]) for g in last]
    if len(stages) > 1:
        parts.append(("all", list(gates)))
    return parts


def increase(answers: Answers, whole: Answers) -> Estimate:
    """Error above that of the whole network, points, with an interval over the images, paired."""
    differences = 100.0 * (whole.right.astype(float) - answers.right.astype(float))
    return estimate(differences.tolist())


HEADER = (
    "attention removed from",
    "parameters saved",
    "extra parameters left",
    "no gate: error (%)",
    "increase (points)",
    "mean gate: error (%)",
    "increase (points)",
)


def removal_markdown(report: RemovalReport) -> str:
    """The table and what one must know to read it."""
    rows = []
    for row in report.rows:
        left = report.gate_params - row.params
        rows.append(
            (
                row.what,
                f"{row.params:,}",
                f"{left:,} ({left / report.plain_params:.1%} of the plain network's)",
                f"{row.neutral.error:.2f}",
                _points(increase(row.neutral, report.whole)),
                f"{row.mean.error:.2f}",
                _points(increase(row.mean, report.whole)),
            )
        )
    share = report.gate_params / report.plain_params
    count = len(report.whole.right)
    return (
        f"{markdown_table(HEADER, rows)}\n\n"
        f"As it is, the network has {report.whole.error:.2f} % error on {count:,} images, and "
        f"{report.gate_params:,} of its {report.params:,} parameters compute gates: {share:.1%} "
        f"more than the plain network's {report.plain_params:,}. Nothing was trained again. "
        "Increases are in points, with 95 % intervals over the images, paired. No gate: one of 1, "
        "or the same weight for each path; mean gate: a constant for each channel, the mean over "
        "these images, which needs no labels."
    )


def _points(gap: Estimate) -> str:
    if gap.low is None or gap.high is None:
        return f"{gap.mean:+.2f}" + (" (no image changes)" if gap.mean == 0 else "")
    return f"{gap.mean:+.2f} [{gap.low:.2f}, {gap.high:.2f}]"


def removal_csv(report: RemovalReport) -> list[tuple[object, ...]]:
    """The numbers, unrounded: a line for each part, the whole network first."""
    head = ("removed", "params_saved", "gate_params_left", "gate", "top1_error", "loss", "images")
    lines: list[tuple[object, ...]] = [head]

    def add(what: str, saved: int, gate: str, answers: Answers) -> None:
        left, loss = report.gate_params - saved, float(np.mean(answers.loss))
        lines.append((what, saved, left, gate, answers.error, loss, len(answers.right)))

    add("nothing", 0, "own", report.whole)
    for row in report.rows:
        add(row.what, row.params, "neutral", row.neutral)
        add(row.what, row.params, "mean", row.mean)
    return lines

"""The tables and figures of the page on where SE helps, from the results that there are.

    python -m experiments.where_does_se_help

reads the studies in ``experiments/results``, the published tables in ``senet_jax.analysis.study``
and the outputs of the notebook on gates. It writes the tables of ``README.md`` in
``experiments/results/where_does_se_help`` anew, each below its marker, and the figures beside it.
A study is part of the page as soon as its runs and the ``report.csv`` of ``senet-jax report`` lie
in a folder of ``experiments/results``.

A gain is positive where the network with attention is the better one: a lower error, a higher mIoU
or AP, in percentage points.
"""

import base64
import csv
import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from senet_jax.analysis.plots import STYLE, save_figure
from senet_jax.analysis.statistics import LEVEL, difference
from senet_jax.analysis.study.cells import read_study
from senet_jax.analysis.study.detection_papers import DETECTORS
from senet_jax.analysis.study.papers import (
    ABLATIONS,
    NETWORKS,
    Published,
    PublishedErrors,
    Trained,
)
from senet_jax.analysis.study.segmentation_papers import SEGMENTERS
from senet_jax.files import read_text, write_text
from senet_jax.models.configured import build_model
from senet_jax.models.cost import Cost, cost
from senet_jax.models.zoo import find
from senet_jax.tasks import find_task
from senet_jax.tasks.base import headline
from senet_jax.tasks.classification import Classification
from senet_jax.tasks.coco_ap import NUMBERS
from senet_jax.tasks.detections import KINDS
from senet_jax.tasks.metrics import Metric
from senet_jax.text import markdown, markdown_table
from senet_jax.training.records.run_dir import read_config

RESULTS = Path(__file__).parent / "results"
PAGE = RESULTS / "where_does_se_help" / "README.md"
NOTEBOOK = RESULTS.parents[1] / "notebooks" / "03_inside_the_gates.ipynb"
IOU = "val/iou/"
"""The metrics of a class in semantic segmentation begin with this."""


@dataclasses.dataclass(frozen=True)
class Compared:
    """A cell of a study beside its baseline, which has no attention."""

    study: str
    """The folder of the study."""
    data: str
    """The data set, and the network by its name in the zoo."""
    cell: str
    baseline: str
    seeds: int
    metric: Metric
    without: float
    """The headline of the baseline, %, mean over the seeds."""
    attentive: float
    """That of the cell."""
    gain: float
    low: float | None
    """The lower end of its 95 % interval; None of one seed, or of seeds that all gain the same."""
    high: float | None
    p: float | None
    """The p-value of the paired t-test, corrected for the number of cells; None where there is no
    interval."""
    params: float
    """The parameters of the cell over those of the baseline."""
    published: float | None
    """The gain that a paper has for the same change; None if none has it."""


def compared(results: Path = RESULTS) -> list[Compared]:
    """The cells of all studies in a folder of results, by study and name.

    Args:
        results: Its folders with a ``report.csv`` are the studies.
    """
    return [each for file in sorted(results.glob("*/report.csv")) for each in _cells(file)]


def _cells(file: Path) -> Iterator[Compared]:
    config = read_config(min(file.parent.rglob("config.json")).parent)
    metric = headline(find_task(config.task))
    sign = -1 if metric.shown_lower_is_better else 1
    with file.open(newline="") as lines:
        rows = {row["cell"]: row for row in csv.DictReader(lines)}
    for name, row in rows.items():
        if not row["difference"]:
            continue
        base = rows[row["baseline"]]
        ends = [row["difference_low"], row["difference_high"]]
        low, high = sorted(sign * float(end) for end in ends) if all(ends) else (None, None)
        yield Compared(
            study=file.parent.name,
            data=f"{config.data.name}, {config.model.name}",
            cell=name,
            baseline=row["baseline"],
            seeds=int(row["seeds"]),
            metric=metric,
            without=float(base[metric.column]),
            attentive=float(row[metric.column]),
            gain=sign * float(row["difference"]),
            low=low,
            high=high,
            p=float(row["corrected_p"]) if row["corrected_p"] else None,
            params=int(row["params"]) / int(base["params"]),
            published=(
                sign * float(row["published_difference"]) if row["published_difference"] else None
            ),
        )


def studies_table() -> str:
    """A line for each cell of each study."""
    head = (
        *("study", "data, network", "cell", "seeds", "measure", "without (%)", "with (%)"),
        *("gain (points)", "p", "", "more parameters", "papers' gain"),
    )
    rows = [
        (
            f"[{each.study}](../{each.study}/report.md)",
            markdown(each.data),
            markdown(each.cell),
            str(each.seeds),
            each.metric.shown_title,
            f"{each.without:.2f}",
            f"{each.attentive:.2f}",
            _gain(each.gain, each.low, each.high),
            "" if each.p is None else f"{each.p:.3f}",
            _verdict(each),
            f"{each.params - 1:.1%}",
            "" if each.published is None else f"{each.published:+.2f}",
        )
        for each in compared()
    ]
    return markdown_table(head, rows)


def _gain(gain: float, low: float | None, high: float | None) -> str:
    between = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
    return f"{gain:+.2f}{between}"


def _verdict(each: Compared) -> str:
    if each.p is None:
        return "no test"
    if each.p >= 1 - LEVEL:
        return "open"
    return "better" if each.gain > 0 else "worse"


def parts_table(results: Path = RESULTS) -> str:
    """The classes and sizes of objects that SE helps in, in studies of scenes and of objects."""
    head = ("study", "measure", "without (%)", "with (%)", "gain (points), 95 % interval")
    rows = []
    dense = [each for each in compared(results) if each.metric not in Classification.metrics]
    for each in dense:
        cells = {cell.name: cell for cell in read_study(results / each.study).cells}
        ours, plain = cells[each.cell], cells[each.baseline]
        label = each.study if len(cells) == 2 else f"{each.study}, {each.cell}"
        for key in filter(_is_part, plain.runs[min(plain.runs)].last):
            with_it, without = (
                {seed: 100 * value for seed, value in cell.by_seed(key).items()}
                for cell in (ours, plain)
            )
            gap = difference(with_it, without)
            assert gap is not None
            means = (f"{np.mean([*values.values()]):.2f}" for values in (without, with_it))
            what = key.removeprefix("val/")
            found = gap.estimate
            rows.append((label, markdown(what), *means, _gain(found.mean, found.low, found.high)))
    return markdown_table(head, rows)


def _is_part(key: str) -> bool:
    """Says if a metric is of a class, or one of COCO's numbers, but for the headline and recall."""
    name = key.removeprefix("val/")
    if not key.startswith("val/") or name == "AP":
        return False
    classes = tuple(f"val/{of_class}" for _, of_class in KINDS.values())
    numbers = {f"{start}{each}" for start, _ in KINDS.values() for each in NUMBERS if "AP" in each}
    return key.startswith((IOU, *classes)) or name in numbers


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two rows of a paper: a network without attention and with it."""

    without: Published
    attentive: Published
    trained: Trained
    """The network with attention."""

    @property
    def gain(self) -> float:
        """Points, positive where attention helps."""
        sign = -1 if isinstance(self.without, PublishedErrors) else 1
        return sign * (self.attentive.value - self.without.value)

    @property
    def data(self) -> str:
        """The data set as papers call it."""
        return self.attentive.what.rpartition(" on ")[2]

    @property
    def mechanism(self) -> str:
        """SE, or split attention."""
        return "SE" if "SE-" in self.attentive.what else "split attention"


PLAIN_OF = {
    "ResNeSt-50 on ImageNet": "ResNet-D-50 + mixup + AutoAugment (0s1x64d) on ImageNet",
    "FCN ResNeSt-50 on ADE20K": "FCN ResNet-50s on ADE20K",
}
"""Networks without attention whose names do not follow from those of the ResNeSts."""


def pairs() -> list[Pair]:
    """The networks of SENet and ResNeSt that were published without attention, too."""
    rows = (*NETWORKS, *SEGMENTERS, *DETECTORS)
    found: dict[tuple[str, str], Published] = {}
    for row in rows:
        found.setdefault((row.published.paper, row.published.what), row.published)
    chosen: dict[tuple[str, str], Pair] = {}
    for row in rows:
        paper, what = row.published.paper, row.published.what
        if "SE-" in what:
            plain = what.replace("SE-", "", 1)
        else:
            plain = PLAIN_OF.get(what, what.replace("ResNeSt", "ResNet", 1))
        without = found.get((paper, plain))
        if without is not None and plain != what:
            chosen.setdefault((paper, what), Pair(without, row.published, row))
    return [*chosen.values()]


def published_table() -> str:
    """The gains of classification: a line for each data set and mechanism."""
    head = ("data", "attention", "networks", "least gain (points)", "median", "largest gain")
    rows = []
    for data, mechanism, group in _groups():
        if not isinstance(group[0].without, PublishedErrors):
            continue
        ordered = sorted(group, key=lambda pair: pair.gain)
        rows.append(
            (
                data,
                mechanism,
                str(len(group)),
                f"{ordered[0].gain:.2f}, {_name(ordered[0])}",
                f"{np.median([pair.gain for pair in group]):.2f}",
                f"{ordered[-1].gain:.2f}, {_name(ordered[-1])}",
            )
        )
    return markdown_table(head, rows)


def _name(pair: Pair) -> str:
    """The network without attention, but for the parts of its recipe."""
    return pair.without.what.partition(" on ")[0].partition(" + ")[0]


def _groups() -> list[tuple[str, str, list[Pair]]]:
    """The pairs by data set and mechanism."""
    groups: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs():
        groups.setdefault((pair.data, pair.mechanism), []).append(pair)
    return [(*key, group) for key, group in groups.items()]


def dense_table() -> str:
    """The gains of segmentation and detection: a line for each network."""
    head = ("data", "network", "measure", "without (%)", "with (%)", "gain (points)", "paper")
    rows = [
        (
            pair.data,
            pair.attentive.what.rpartition(" on ")[0],
            "mIoU" if any(pair.trained is row for row in SEGMENTERS) else "box AP",
            f"{pair.without.value:.2f}",
            f"{pair.attentive.value:.2f}",
            f"{pair.gain:+.2f}",
            pair.attentive.paper.partition(",")[0],
        )
        for pair in pairs()
        if not isinstance(pair.without, PublishedErrors)
    ]
    return markdown_table(head, rows)


SHOWN_ABLATIONS: dict[tuple[str, str | float], str] = {
    ("standard", ""): "SE in all stages, mean, sigmoid",
    ("stage", 2): "SE in the first stage alone (conv2_x)",
    ("stage", 3): "SE in the second alone (conv3_x)",
    ("stage", 4): "SE in the third alone (conv4_x)",
    ("squeeze", "max"): "maximum in place of the mean",
    ("squeeze", "none"): "the layers at each pixel, no mean",
    ("gate", "tanh"): "tanh in place of the sigmoid",
    ("gate", "relu"): "ReLU in place of the sigmoid",
}
"""Rows of SENet's ablations in words."""


def ablations_table() -> str:
    """SENet's ablations of SE-ResNet-50 on ImageNet that are about the place and form of SE."""
    none = ABLATIONS["none", ""].value
    rows = [
        (words, f"{ABLATIONS[key].value:.2f}", f"{none - ABLATIONS[key].value:+.2f}")
        for key, words in SHOWN_ABLATIONS.items()
    ]
    return markdown_table(("SE-ResNet-50", "error (%)", "gain over no SE (points)"), rows)


def _outputs() -> list[tuple[str, dict[str, Any]]]:
    """The source of each cell of the notebook on gates, and what it printed or drew."""
    notebook = json.loads(read_text(NOTEBOOK))
    return [
        ("".join(cell["source"]), {"stream": output.get("text", []), **output.get("data", {})})
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
    ]


def _texts(kind: str, pattern: str) -> list[str]:
    """The outputs of a kind that match a pattern."""
    texts = ("".join(output.get(kind, [])) for _, output in _outputs())
    return [text for text in texts if re.search(pattern, text)]


NETWORKS_OF_NOTEBOOK = ("digits", "a tenth of CIFAR-10")
"""The data of the two networks whose gates the notebook looks into, in its order."""


def gates_table() -> str:
    """The gates of both networks of the notebook, block by block."""
    (levels,), (shares,) = _texts("stream", "least +mean"), _texts("stream", "shuffled labels")
    (photographs,) = _texts("stream", "deviation over images [0-9]")
    number = r" +([0-9.]+)"
    mean = re.findall(rf"^(stage\S+){number}{number}{number}{number}", levels, re.M)
    share = dict(re.findall(rf"^(stage\S+) +[0-9.]+{number}", shares, re.M))
    rows = [
        (NETWORKS_OF_NOTEBOOK[0], block, middle, deviation, share[block])
        for block, _, middle, _, deviation in mean
    ]
    found = r"^(stage\S+): mean (\S+), deviation over images (\S+), specificity (\S+)"
    rows += [(NETWORKS_OF_NOTEBOOK[1], *row) for row in re.findall(found, photographs, re.M)]
    head = ("data", "block", "mean gate", "deviation over images", "share between classes")
    return markdown_table(head, rows)


def removal_table() -> str:
    """The error of both without the attention of a stage."""
    rows = []
    for data, text in zip(
        NETWORKS_OF_NOTEBOOK, _texts("text/markdown", "attention removed from"), strict=True
    ):
        lines = text.partition("\n\n")[0].splitlines()[2:]
        for what, _, _, *numbers in (line.strip("| ").split(" | ") for line in lines):
            rows.append((data, what, *numbers))
    head = ("data", "attention removed from", "gate of 1: error (%)", "increase (points)")
    return markdown_table((*head, "mean gate: error (%)", "increase (points)"), rows)


def take_figures(folder: Path) -> None:
    """Takes ``depth.png`` and ``gates.png`` out of the notebook."""
    for call in ("draw_depth", "draw_gates"):
        (picture,) = (
            out["image/png"]
            for text, out in _outputs()
            if f"{call}(" in text and out.get("image/png")
        )
        (folder / f"{call.removeprefix('draw_')}.png").write_bytes(base64.b64decode(picture))


TABLES: Mapping[str, Callable[[], str]] = {
    "studies": studies_table,
    "published": published_table,
    "gates": gates_table,
    "removal": removal_table,
    "ablations": ablations_table,
    "dense": dense_table,
    "parts": parts_table,
}
"""The tables of the page by their markers."""


def filled(page: str) -> str:
    """A page whose tables are what the results say; each follows a comment with its name.

    Args:
        page: Markdown.
    """
    for name, table in TABLES.items():
        before, marker, after = page.partition(f"<!-- {name} -->\n\n")
        if marker:
            _, blank, rest = after.partition("\n\n")
            page = f"{before}{marker}{table()}{blank}{rest}"
    return page


BLUE, BROWN, GREY = "#0b5394", "#b45f06", "#555555"


def draw_gains(file: Path) -> None:
    """Draws the gains of all studies with their intervals, and those of the papers."""
    cells, groups = compared(), _groups()
    lanes = len(cells) + len(groups)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 0.9 + 0.3 * lanes), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=GREY, linewidth=0.8)
        names = []
        for place, each in enumerate(cells):
            if each.low is not None and each.high is not None:
                axes.plot((each.low, each.high), (place, place), color=BLUE, linewidth=1.4)
            axes.plot(each.gain, place, "o", color=BLUE, markersize=4)
            names.append(f"{each.study}: {each.cell}, {each.metric.shown_title}")
        for place, (data, mechanism, group) in enumerate(groups, len(cells)):
            gains = [pair.gain for pair in group]
            axes.plot(gains, [place] * len(gains), "o", color=BROWN, markersize=4, alpha=0.7)
            names.append(f"papers: {data}, {mechanism}")
        axes.set_yticks(range(lanes), names, fontsize=8)
        axes.set_ylim(lanes - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.axhline(len(cells) - 0.5, color=GREY, linewidth=0.5, linestyle=":")
        axes.set_xlabel(
            "gain of attention (points)\nblue: studies here, line: 95 % interval; brown: networks "
            "of the papers"
        )
        save_figure(figure, file)


def _cost(config: Trained, *, attention: bool) -> Cost:
    """The cost of a published SE network, or of the same network without its SE."""
    model = config.model
    if not attention:
        none = dataclasses.replace(model.attention, kind="none")
        model = dataclasses.replace(model, attention=none)
    entry = find(model.name)
    classes = int(entry.fields.get("num_classes", 1000))
    return cost(build_model(model, classes), entry.input_size)


LEFT = ("BN-Inception", "ResNeXt-50 32x4d")
"""Networks whose names stand to the left of their arrows, since there are others to the right."""


def draw_cost(file: Path) -> None:
    """Draws SENet's errors on ImageNet against cost: an arrow from a network to it with SE."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 4.2), layout="constrained")
        axes = figure.subplots()
        axes.set_xscale("log")
        for pair in pairs():
            if (pair.data, pair.mechanism) != ("ImageNet", "SE"):
                continue
            start, end = (
                (_cost(pair.trained, attention=attentive).macs / 1e6, row.value)
                for attentive, row in ((False, pair.without), (True, pair.attentive))
            )
            axes.plot(*start, "o", color="white", markeredgecolor=BLUE, markersize=5)
            axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": BLUE})
            name, left = _name(pair), _name(pair) in LEFT
            axes.annotate(
                name,
                start,
                xytext=(-6 if left else 6, 1),
                textcoords="offset points",
                ha="right" if left else "left",
                fontsize=7,
                color=GREY,
            )
        axes.margins(x=0.2, y=0.06)
        axes.set_xlabel("multiply-accumulates (millions)")
        axes.set_ylabel("top-1 error on ImageNet (%), as published")
        save_figure(figure, file)


def main() -> None:
    """Writes the tables of the page anew and draws its figures."""
    write_text(PAGE, filled(read_text(PAGE)))
    draw_gains(PAGE.parent / "gains.png")
    draw_cost(PAGE.parent / "cost.png")
    take_figures(PAGE.parent)
    print(f"{PAGE.parent}: README.md, gains.png, cost.png, depth.png, gates.png")


if __name__ == "__main__":
    main()

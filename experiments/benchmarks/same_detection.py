"""The same detector trained by senet_jax and by torchvision.

    python -m experiments.benchmarks.same_detection --data-dir DIR --torch-python PYTHON

trains a small Mask R-CNN twice on images with masks in COCO's format, such as the nuclei of the
preset of that name: by senet_jax's own training step, and by torchvision's ``MaskRCNN`` in a loop
that is written in PyTorch. Both have the same network of torchvision's structure (a ResNet of basic
blocks, whose batch norms are trained, with a feature pyramid), the same initial weights, drawn by
senet_jax, the same images in the same order without augmentation, AdamW with the same constants and
the same learning rates. In training, masks reach torchvision as bitmaps, and senet_jax as grids
over the boxes, as its loader makes them.

Each side draws anchors and proposals by its own generator, so that losses agree in distribution
alone. Each trains with several seeds of that drawing, whose spread is the measure. The first batch
needs no drawing where all anchors and proposals are taken: with bitmaps of the masks on both sides
its losses agree to rounding. pycocotools evaluates both on the held-out images, torchvision's on
masks that it pasted itself. senet_jax also evaluates the weights that torchvision trained. Prints
the means of the last quarter of the steps and AP, writes them with the curves to ``--out`` and
draws the curves beside it (PNG).

PyTorch's running variances are the unbiased ones: 0.4 % more than senet_jax's in the last stage,
whose maps have the fewest pixels, with 4 images of 256x256. The images must have one size.
"""

import dataclasses
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from jaxtyping import Int

from experiments.benchmarks.harness.measure import RESULTS, table, write
from experiments.benchmarks.harness.torchvision_cpu import library_path
from senet_jax.config import TrainConfig
from senet_jax.data.augment.keys import StepKeys
from senet_jax.data.config import AugmentConfig
from senet_jax.data.examples import Draws
from senet_jax.data.pictures import PictureDataset
from senet_jax.errors import UsageError
from senet_jax.files import write_whole
from senet_jax.interchange import from_torch, to_torch
from senet_jax.models.configured import model_fields
from senet_jax.models.detection.mask_rcnn import MaskRCNN
from senet_jax.tasks.coco_ap import coco_scores, results_of_image
from senet_jax.tasks.detection import Detection
from senet_jax.training.detection_presets import NUCLEI
from senet_jax.training.distributed.mesh import to_devices
from senet_jax.training.run import Run
from senet_jax.training.step import key_data, network_keys

OURS, THEIRS = "senet_jax", "torchvision"
LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask")
AP = ("AP", "AP50", "mask_AP", "mask_AP50")
COLUMNS = ("quantity", OURS, THEIRS, "difference", "between seeds")
EVERYTHING: dict[str, Any] = {
    "rpn_samples": 10**6,
    "rpn_positive": 1.0,
    "box_samples": 10**6,
    "box_positive": 1.0,
}
"""The fields of a detector that trains on all anchors and proposals."""

Arrays = dict[str, np.ndarray]
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class SameDetection:
    """Compare a detector trained by senet_jax and by torchvision."""

    data_dir: Path
    """Images with masks in COCO's format."""
    torch_python: str
    """A Python that has torch and torchvision."""
    epochs: int = 3
    """Epochs of each training."""
    batch: int = 4
    """Images of a step."""
    seeds: int = 2
    """Trainings of each side, which differ in the anchors and proposals that are drawn."""
    out: Path = RESULTS / "same_detection" / "cpu.json"
    """The result."""


def config_of(options: SameDetection) -> TrainConfig:
    """The preset of nuclei on a network that torchvision has, without augmentation."""
    own = {"name": "maskrcnn_resnet18_fpn", "widths": None, "stem_width": None}
    model = dataclasses.replace(NUCLEI.model, **own)  # type: ignore[arg-type]
    data = dataclasses.replace(
        NUCLEI.data, dir=options.data_dir, batch_size=options.batch, augment=AugmentConfig()
    )
    return dataclasses.replace(NUCLEI, model=model, data=data, epochs=options.epochs)


class Comparison:
    """The common parts of the trainings: the data, the network and its initial weights."""

    def __init__(self, options: SameDetection) -> None:
        config = config_of(options)
        dataset = Detection.open(config)
        sizes = np.unique(np.concatenate([dataset.train.sizes, dataset.val.sizes]), axis=0)
        if len(sizes) > 1:
            raise UsageError(f"the images have {len(sizes)} sizes, and must have one.")
        most = int(dataset.train.counts.max())
        objects = dataclasses.replace(config.data.objects, most=most)
        self.config = dataclasses.replace(
            config, data=dataclasses.replace(config.data, objects=objects)
        )
        self.dataset: PictureDataset = dataset
        self.size: list[int] = sizes[0].tolist()
        self.run = Run(self.config, dataset, jax.devices()[:1])
        self.run.check_trainable()
        assert isinstance(self.run.model, MaskRCNN)
        self.model = self.run.model
        self.order = order_of(len(dataset.train), self.run.batches.steps_per_epoch, config)
        drawn = self.run.programs.draw(self.config.seed)
        self.variables = jax.tree.map(np.asarray, drawn)

    @property
    def network(self) -> tuple[str, dict[str, Any]]:
        """The name of the network and its fields."""
        return self.config.model.name, model_fields(self.config.model, self.model.num_classes)

    def batch(self, step: int) -> dict[str, jax.Array]:
        """The images of a step and their objects, as senet_jax's loader makes them.

        Raises:
            UsageError: An image cannot be read.
        """
        (examples,) = self.run.batches.examples
        indices = self.order[step]
        # Nothing is drawn, as there is no augmentation.
        arrays, failed = examples.read(indices, [Draws(0) for _ in indices])
        for row, reason in failed.items():
            raise UsageError(f"{examples.name(int(indices[row]))} cannot be read: {reason}.")
        found: dict[str, jax.Array] = to_devices(arrays, self.run.mesh)
        return found

    def settings(self) -> dict[str, Any]:
        """The network and the optimizer in words that the other side knows."""
        names = (
            *("anchor_ratios", "num_classes", "pyramid_width", "box_bins", "box_width"),
            *("mask_bins", "mask_convs", "mask_width", "roi_samples", "detections"),
            *("pre_nms_train", "pre_nms_test", "post_nms_train", "post_nms_test"),
            *("rpn_samples", "rpn_positive", "box_samples", "box_positive"),
        )
        optimizer, pixels = self.config.optimizer, self.run.network.normalization
        return {
            **{name: getattr(self.model, name) for name in names},
            "blocks": self.model.backbone.blocks,
            "anchor_sizes": self.model.sizes_by_level,
            "size": self.size,
            "mean": pixels.mean,
            "std": pixels.std,
            "b1": optimizer.b1,
            "b2": optimizer.b2,
            "weight_decay": optimizer.weight_decay,
        }

    def job(self) -> Arrays:
        """All that torchvision is given; see ``harness/torch_detection_training.py``."""
        train, val = self.dataset.train, self.dataset.val
        chosen, order = np.unique(self.order, return_inverse=True)
        images, objects = [], []
        for index in chosen.tolist():
            picture = train.picture(index, masks=True)
            assert picture.masks is not None
            learnt = ~picture.crowd & picture.masks.any((1, 2))
            images.append(picture.image)
            objects.append(
                (
                    picture.boxes[learnt],
                    picture.labels[learnt].astype(np.int64) + 1,
                    np.packbits(picture.masks[learnt], axis=-1),
                )
            )
        boxes, labels, masks = map(np.concatenate, zip(*objects, strict=True))
        counts = [len(own) for own, _, _ in objects]
        name, fields = self.network
        weights = to_torch(name, self.variables, **fields)
        steps = range(len(self.order))
        rates = [float(self.run.schedule(step)) for step in steps]
        return {
            "settings": np.array(json.dumps(self.settings())),
            "images": np.stack(images),
            "first": np.cumsum([0, *counts]),
            "boxes": boxes,
            "labels": labels,
            "masks": masks,
            "order": order.reshape(self.order.shape),
            "rates": np.array(rates),
            "held_out": np.stack([val.picture(i, masks=False).image for i in range(len(val))]),
            **{f"weights/{key}": array for key, array in weights.items()},
        }

    def first_losses(self) -> dict[str, float]:
        """The losses of the first batch over all its anchors and proposals; masks are bitmaps."""
        network = dataclasses.replace(self.run.network, model=self.model.clone(**EVERYTHING))
        task, keys = self.run.task, StepKeys.of(jax.random.key(0), 0)

        def losses(variables: Any, batch: dict[str, jax.Array]) -> Any:
            found, _ = network.apply(
                variables,
                *task.inputs(batch, train=True),
                train=True,
                mutable=["batch_stats"],
                rngs=network_keys(task, keys.dropout),
            )
            return found

        batch = {name: x for name, x in self.batch(0).items() if name != "mask_boxes"}
        batch["masks"] = to_devices(self.bitmaps(0, batch), self.run.mesh)
        found = network.jit(losses)(self.variables, batch)
        return {name: float(found[name]) for name in LOSSES}

    def bitmaps(self, step: int, batch: Mapping[str, jax.Array]) -> np.ndarray:
        """The masks of the objects of a step as pixels of the padded images.

        Args:
            step: The step.
            batch: Its arrays, which say the places of the objects.
        """
        learnt = np.asarray(batch["valid"] & ~batch["crowd"])
        masks = np.zeros((*learnt.shape, *self.dataset.frame), np.uint8)
        height, width = self.size
        for row, index in enumerate(self.order[step].tolist()):
            picture = self.dataset.train.picture(index, masks=True)
            assert picture.masks is not None
            own = picture.masks[~picture.crowd & picture.masks.any((1, 2))]
            masks[row, learnt[row], :height, :width] = own
        return masks

    def train(self, seed: int) -> Row:
        """Trains by senet_jax's step.

        Args:
            seed: It decides which anchors and proposals are drawn, and nothing else.
        """
        state = self.run.programs.start(self.variables)
        data, curves = key_data(seed), _empty()
        for step in range(len(self.order)):
            state, metrics = self.run.programs.train(state, self.batch(step), data)
            for name in LOSSES:
                curves[name].append(float(metrics[name]))
        return _row(OURS, seed, curves, self.scores(state.eval_variables))

    def scores(self, variables: Any) -> dict[str, float]:
        """AP of weights on the held-out images, by senet_jax's evaluation."""
        metrics = self.run.evaluate(variables)
        return {name: metrics[f"val/{name}"] for name in AP}

    def theirs(self, seed: int, found: Arrays) -> Row:
        """The row of a training by torchvision, from the arrays that it wrote."""
        curves = {name: found[f"losses/{name}"].tolist() for name in LOSSES}
        weights = _part(found, "weights")
        name, fields = self.network
        row = _row(THEIRS, seed, curves, self.scores_of(_part(found, "found")))
        return {**row, "AP in senet_jax": self.scores(from_torch(name, weights, **fields))}

    def scores_of(self, found: Arrays) -> dict[str, float]:
        """AP of detections in all held-out images."""
        val, ids = self.dataset.val, np.array(self.dataset.category_ids)
        ends, results = np.cumsum(found["counts"]), []
        for place, (end, count) in enumerate(zip(ends.tolist(), found["counts"], strict=True)):
            rows = slice(end - count, end)
            masks = np.unpackbits(found["masks"][rows], axis=-1, count=self.size[1])
            results += results_of_image(
                val.image_id(place),
                found["boxes"][rows],
                ids[found["labels"][rows] - 1],
                found["scores"][rows],
                masks.astype(bool),
            )
        truth, most = val.truth(), self.model.detections
        numbers: dict[str, float] = {}
        for start, kind in (("", "bbox"), ("mask_", "segm")):
            scores = coco_scores(truth, results, kind, most)  # type: ignore[arg-type]
            numbers |= {f"{start}{name}": scores.numbers[name] for name in ("AP", "AP50")}
        return numbers


def order_of(images: int, per_epoch: int, config: TrainConfig) -> Int[np.ndarray, "steps batch"]:
    """The images of each step: every epoch a new order, its incomplete last batch dropped."""
    rng, batch = np.random.default_rng(config.seed), config.data.batch_size
    epochs = [rng.permutation(images)[: per_epoch * batch] for _ in range(config.epochs)]
    return np.concatenate(epochs).reshape(-1, batch)


def compare(options: SameDetection) -> tuple[list[Row], dict[str, Any]]:
    """The rows of the result, one for each training, and what both sides have in common."""
    own = Comparison(options)
    rows, about = [], {"settings": own.settings(), "steps": len(own.order)}
    first = {OURS: own.first_losses()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        libraries = folder / "libraries"
        libraries.mkdir()
        path = library_path(options.torch_python, libraries)
        np.savez(folder / "job.npz", allow_pickle=False, **own.job())
        for seed in range(options.seeds):
            found = _in_torch(options.torch_python, folder, seed, path)
            first[THEIRS] = {name: float(x) for name, x in _part(found, "first").items()}
            about["peer"] = {name: str(x) for name, x in _part(found, "versions").items()}
            rows.append(own.theirs(seed, found))
            rows.append(own.train(seed))
    return rows, {**about, "first losses without drawing": first, "compared": compared(rows)}


def compared(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The means of both sides over the seeds, and the largest range of the seeds of a side."""

    def values(quantity: str, side: str) -> list[float]:
        of_side = [row for row in rows if row["side"] == side]
        return [{**row["last"], **row["scores"]}[quantity] for row in of_side]

    found = []
    for quantity in (*LOSSES, "loss", *AP):
        sides = {side: values(quantity, side) for side in (OURS, THEIRS)}
        ours, theirs = (float(np.mean(sides[side])) for side in (OURS, THEIRS))
        ranges = [max(own) - min(own) for own in sides.values()]
        found.append(
            dict(zip(COLUMNS, (quantity, ours, theirs, ours - theirs, max(ranges)), strict=True))
        )
    return found


def _row(side: str, seed: int, curves: Mapping[str, list[float]], scores: dict[str, float]) -> Row:
    quarter = max(len(curves[LOSSES[0]]) // 4, 1)
    last = {name: float(np.mean(curves[name][-quarter:])) for name in LOSSES}
    return {
        "side": side,
        "seed": seed,
        "last": {**last, "loss": sum(last.values())},
        "scores": scores,
        "curves": {name: [float(f"{x:.6g}") for x in curves[name]] for name in LOSSES},
    }


def _empty() -> dict[str, list[float]]:
    return {name: [] for name in LOSSES}


def _part(arrays: Arrays, name: str) -> Arrays:
    """The arrays below a name, by the rest of their names."""
    start = f"{name}/"
    return {key.removeprefix(start): x for key, x in arrays.items() if key.startswith(start)}


def _in_torch(python: str, folder: Path, seed: int, libraries: str) -> Arrays:
    module = "experiments.benchmarks.harness.torch_detection_training"
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "LD_LIBRARY_PATH": libraries}
    done = subprocess.run(
        [python, "-m", module, str(folder), str(seed)],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{python} -m {module} failed:\n{done.stderr[-2000:]}")
    with np.load(folder / "torch.npz") as arrays:
        return dict(arrays)


def draw(rows: Sequence[Row], out: Path) -> None:
    """Draws the curve of each loss, smoothed over a tenth of the steps, and AP at the end."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(10, 5.6), layout="constrained")
    panels = figure.subplots(2, 3).flatten()
    colors = {OURS: "#0b5394", THEIRS: "#e06666"}
    styles = ("-", "--", ":", "-.")
    for axes, name in zip(panels, LOSSES, strict=False):
        for row in rows:
            values, color = np.array(row["curves"][name]), colors[row["side"]]
            steps = np.arange(1, len(values) + 1)
            axes.plot(steps, values, color=color, lw=0.5, alpha=0.2)
            style = styles[row["seed"] % len(styles)]
            label = f"{row['side']}, seed {row['seed']}"
            axes.plot(steps, smooth(values), style, color=color, lw=1.3, label=label)
        axes.set(title=name, xlabel="step", yscale="log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    handles, labels = panels[0].get_legend_handles_labels()
    axes = panels[-1]
    for row, shift in zip(rows, np.linspace(-0.24, 0.24, len(rows)), strict=True):
        places, scores = np.arange(len(AP)) + shift, [100 * row["scores"][name] for name in AP]
        axes.plot(places, scores, "o", ms=5, color=colors[row["side"]])
        if other := row.get("AP in senet_jax"):
            ring = [100 * other[name] for name in AP]
            (mark,) = axes.plot(places, ring, "o", ms=9, mfc="none", color="#888888", mew=0.8)
    names = [name.replace("_", "\n") if "_" in name else f"box\n{name}" for name in AP]
    axes.set(title="held-out images, %", xticks=range(len(AP)), xticklabels=names, ylim=(0, 100))
    figure.legend(
        [*handles, mark],
        [*labels, "torchvision's weights, evaluated by senet_jax"],
        loc="outside lower center",
        ncols=3,
        frameon=False,
    )
    for axes in figure.axes:
        axes.grid(alpha=0.3, linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    write_whole(out, lambda partial: figure.savefig(partial, format="png", dpi=150))


def smooth(values: np.ndarray) -> np.ndarray:
    """The means of the steps within a window of a tenth of them, which is cut at both ends."""
    window = np.ones(max(len(values) // 10, 1))
    sums, counts = (np.convolve(x, window, "same") for x in (values, np.ones(len(values))))
    return sums / counts


def main() -> None:
    """Runs the comparison."""
    options = tyro.cli(SameDetection, description=__doc__)
    rows, about = compare(options)
    write(options.out, rows, **about)
    draw(rows, options.out.with_suffix(".png"))
    print(json.dumps(about["first losses without drawing"], indent=2))
    print(f"{table(about['compared'], COLUMNS)}\n\n{options.out}")


if __name__ == "__main__":
    main()

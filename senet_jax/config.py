"""An experiment as a value: frozen dataclasses, one flag a field.

This file imports neither jax nor the models, so that ``--help`` answers at once.
"""

import dataclasses
import importlib.metadata
import itertools
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, Literal

from senet_jax.data.config import DataConfig
from senet_jax.errors import UsageError, require
from senet_jax.fields.attention import MECHANISMS, Kind
from senet_jax.fields.detectors import DETECTORS
from senet_jax.fields.models import FAMILIES
from senet_jax.fields.segmenters import SEGMENTERS
from senet_jax.fields.union import union_of
from senet_jax.files import user_address, user_path, user_weights
from senet_jax.ops.lowerings import Lowering
from senet_jax.ranges import (
    LARGE,
    MOST_BATCH,
    MOST_DEVICES,
    MOST_EPOCHS,
    MOST_SEED,
    MOST_STEPS,
    RATE,
    Range,
    check_config,
    whole,
)

_AttentionFields = union_of(MECHANISMS)
_FamilyFields = union_of(FAMILIES)
_ComposedFields = union_of({**SEGMENTERS, **DETECTORS})


@dataclasses.dataclass(frozen=True)
class _Kind:
    kind: Literal[Kind, "none"] | None = None
    """Another mechanism altogether, or "none" to take it out."""


# A type checker does not know the fields of classes that are made of others.
@dataclasses.dataclass(frozen=True)
class AttentionOverrides(_AttentionFields, _Kind):  # type: ignore[misc, valid-type]
    """Fields that differ from the attention of the named network; None keeps the network's own."""


@dataclasses.dataclass(frozen=True)
class _Named:
    name: str = "cifar_seresnet20"
    """A name that `senet-jax models` lists; for semantic segmentation HEAD_BACKBONE: "fcn",
    "deeplabv3", "deeplabv3plus" or "pspnet" on one of them, such as "deeplabv3_resnest50d"; for
    detection HEAD_BACKBONE_fpn or HEAD_BACKBONE_fpn_v2: "fasterrcnn", "maskrcnn", "cascadercnn" or
    "cascademaskrcnn" on one of them, such as "maskrcnn_resnest50d_fpn"."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute precision; parameters, statistics and gates are float32 always."""
    attention: AttentionOverrides = AttentionOverrides()


@dataclasses.dataclass(frozen=True)
class ModelConfig(_FamilyFields, _ComposedFields, _Named):  # type: ignore[misc, valid-type]
    """The network: a named one, and what differs from it; None keeps the network's own."""


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its schedule."""

    name: Literal["sgd", "adamw", "lars", "lamb"] = "sgd"
    """SGD with momentum, AdamW (arXiv 1711.05101), or for very large batches LARS (arXiv
    1708.03888) or LAMB (arXiv 1904.00962), which scale the update of each kernel by the ratio of
    their norms. Parameters without weight decay (biases, batch norms) have the plain rate."""
    learning_rate: Annotated[float, Range(0, LARGE)] = 0.1
    """Peak learning rate."""
    base_batch: Annotated[int | None, whole(1, MOST_BATCH, none="the rate as it is")] = None
    """The batch that ``learning_rate`` is for: with another, the rate is scaled in proportion
    (arXiv 1706.02677); None means the rate as it is."""
    schedule: Literal["cosine", "step", "polynomial", "plateau"] = "cosine"
    """After the warm-up: a half cosine down to zero, steps, a power of the share of steps left, or
    a drop whenever the validation loss has stopped falling."""
    warmup_epochs: Annotated[float, Range(0, MOST_EPOCHS)] = 0.0
    """Epochs over which the rate rises linearly from zero."""
    milestones: Annotated[
        tuple[float, ...], Range(0, MOST_EPOCHS, open_below=True, count=(0, 1000))
    ] = ()
    """Epochs at which the step schedule multiplies the rate by ``decay``."""
    decay: Annotated[float, Range(0, 1, open_below=True)] = 0.1
    """The factor of the step and the plateau schedule."""
    power: Annotated[float, Range(0, 100)] = 2.0
    """The exponent of the polynomial schedule (LARS: 2; 1 is a straight line)."""
    # int32 in the optimizer's state.
    patience: Annotated[int, whole(1, MOST_STEPS)] = 10
    """Validations in a row without a lower loss (by a ten-thousandth) after which the plateau
    schedule drops the rate."""
    # The scale is decay ** max_drops, which is 0 in float32 long before.
    max_drops: Annotated[int, whole(1, 1000)] = 3
    """The most times that the plateau schedule drops the rate."""
    momentum: Annotated[float, RATE] = 0.9
    """Momentum of SGD and LARS."""
    nesterov: bool = True
    """Nesterov's form of the momentum."""
    weight_decay: Annotated[float, Range(0, 1e6)] = 1e-4
    """Decay of the kernels; biases and batch norm have none. L2 in the gradient for SGD and LARS,
    decoupled for AdamW and LAMB."""
    decay_all: bool = False
    """Decay every parameter, biases and batch norm too (ResNeSt's authors, for segmentation)."""
    trust_coefficient: Annotated[float, Range(0, 1e6, open_below=True)] = 1e-3
    """LARS: the norm of an update over that of its kernel, before the learning rate."""
    b1: Annotated[float, RATE] = 0.9
    """Decay per step of the mean of the gradients, of AdamW and LAMB."""
    b2: Annotated[float, RATE] = 0.999
    """Decay per step of the mean of their squares, of AdamW and LAMB."""
    eps: Annotated[float | None, Range(0, 1, open_below=True, none="the optimizer's own")] = None
    """Added to the root of that mean by AdamW and LAMB; if None, 1e-8 for AdamW and 1e-6 for
    LAMB."""
    clip_norm: Annotated[float | None, Range(0, LARGE, open_below=True, none="no clipping")] = None
    """Clip the gradient to this global norm."""


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """The checkpoints that are saved and kept."""

    every_epochs: Annotated[int, whole(1, MOST_EPOCHS)] = 1
    """Save after every so many epochs, and after the last."""
    every_steps: Annotated[int | None, whole(1, MOST_STEPS, none="after epochs only")] = None
    """Save also every so many steps."""
    keep_last: Annotated[int, whole(1, MOST_STEPS)] = 2
    """The number of the newest checkpoints that are kept, besides the best."""
    best_metric: str | None = None
    """Metric of the validation by which the best checkpoint is chosen and kept, such as "val/loss";
    None means the first metric of the task, "val/top1" for classification. Only checkpoints that
    were saved right after a validation count."""
    keep_every_epochs: Annotated[int | None, whole(1, MOST_EPOCHS, none="none for good")] = None
    """Keep for good also what is saved after every so many epochs."""
    dir: str | None = None
    """Folder of this run's checkpoints, if not ``checkpoints`` in the run's own: a folder that all
    hosts see, or gs://BUCKET/FOLDER (``pip install -e '.[gcs]'``). A folder that holds the
    checkpoints of another run is refused. On a disk it is locked while the run trains; a bucket
    has no lock: start no second run in it."""


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """The division of the work among the devices; up to rounding it changes no number."""

    data: Annotated[int | None, whole(1, MOST_DEVICES, none="all devices")] = None
    """Devices that share a batch, each group of ``fsdp`` with a whole state; None means all."""
    fsdp: Annotated[int, whole(1, MOST_DEVICES)] = 1
    """Devices that also share the state: of parameters, optimizer state and average each keeps its
    part, and a step gathers the parameters (ZeRO, arXiv 1910.02054)."""


MEDIAN, ROOT_MEDIAN = "median", "root_median"
"""The weights of the classes that are no file: those by median frequency, and their roots."""


@dataclasses.dataclass(frozen=True)
class SegmentationConfig:
    """The loss of semantic segmentation."""

    aux_weight: Annotated[float, Range(0, 1e6)] = 0.4
    """Weight of the loss of the auxiliary head, if the network has one (PSPNet: 0.4; the command of
    ResNeSt's authors: 0.2; torchvision: 0.5)."""
    class_weights: str | None = None
    """Weights of the classes in the training loss: "median", by median frequency (arXiv 1411.4734,
    section 6.3.2); "root_median", the square roots of these; or a file of numbers, one a line, in
    the order of the classes. None weighs all pixels alike."""
    adjust_logits: bool = False
    """Add the logarithms of the class weights to the logits in the training loss (logit adjustment,
    arXiv 2007.07314, section 4.2). Weighted pixels then teach rare classes early, and the logits
    still are those of the frequencies of the training set: without it, outlines of rare classes
    grow too thick."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Train a network, from the start or from where it stopped."""

    run_dir: Path = Path("runs/default")
    """Folder of the run: config, checkpoints, metrics, TensorBoard files and curves. The same
    command on the same folder resumes."""
    task: str = "classification"
    """The task: "classification", "segmentation", "detection", or one of another package that is
    installed."""
    epochs: Annotated[int, whole(1, MOST_EPOCHS)] = 90
    """Passes over the training images."""
    seed: Annotated[int, whole(0, MOST_SEED)] = 0
    """Seed of initialisation, order and augmentation."""
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    init_weights: str | None = None
    """Start from these weights: a .safetensors, .npz or .pth file in PyTorch's names, or
    "hf-hub:owner/repository"."""
    drop_head: bool = False
    """Leave the classifier of those weights out, and start a fresh one."""
    weights_of: Literal["auto", "average", "raw"] = "auto"
    """Weights that are taken of a training checkpoint of PyTorch's: the moving average, the raw
    ones, or (auto) the average if there is one."""
    frozen: tuple[str, ...] = ()
    """Parameters that do not change: shell patterns of their paths, such as "stem/*" or
    "stage[23]/*". The statistics of their batch norms go on following the data."""
    # A fraction, and above 1 still a learning rate.
    body_rate: Annotated[float, Range(0, 1e6)] = 1.0
    """Learning rate of all but the classifier, as a fraction of the classifier's."""
    label_smoothing: Annotated[float, RATE] = 0.0
    """Share of the target spread over all classes."""
    segmentation: SegmentationConfig = SegmentationConfig()
    conv_lowering: Lowering | None = None
    """Form of the convolutions to which it applies; all others are then XLA's own, which "native"
    means. The forms are described in ops/conv_forms.py and ops/conv_gradients.py. None chooses for
    each convolution what was measured to be fast."""
    ema_decay: Annotated[
        float | None, Range(0, 1, open_below=True, open_above=True, none="no average")
    ] = None
    """Decay per step of an average of parameters and statistics, which is then what is
    evaluated; None keeps none."""
    eval_every_epochs: Annotated[int, whole(1, MOST_EPOCHS)] = 1
    """Validate after every so many epochs, and after the last."""
    log_every_steps: Annotated[
        int | None, whole(1, MOST_STEPS, none="a line for each epoch only")
    ] = None
    """Write a line of metrics every so many steps besides the one of each epoch."""
    mesh: MeshConfig = MeshConfig()
    accumulate: Annotated[int, whole(1, MOST_BATCH)] = 1
    """Parts in which a batch is computed, one after the other, to save memory: their gradients are
    averaged, and reduced over the devices part by part. Batch norm takes its statistics over a
    part."""
    deterministic: bool = False
    """On a GPU, XLA's deterministic operations: bit-identical runs, slower. A CPU is
    deterministic anyway."""
    compilation_cache: bool | None = None
    """Keep compiled programs in ~/.cache/senet_jax/xla (XDG_CACHE_HOME, if set, instead of
    ~/.cache), so that the next start need not compile. None means on accelerators only: on a CPU
    it works too, but jax prints lines of warnings at every load. JAX_COMPILATION_CACHE_DIR
    chooses another folder, and turns it on everywhere."""

    def validate(self) -> None:
        """Checks what a type cannot say.

        Raises:
            UsageError: A field whose value is outside its range.
        """
        check_config(self)
        self.data.validate()
        if self.drop_head and self.init_weights is None:
            raise UsageError("drop_head needs weights whose head is dropped: --init-weights.")
        if self.weights_of != "auto" and self.init_weights is None:
            raise UsageError("weights_of needs the weights to choose from: --init-weights.")
        self._check_paths()
        self._check_norm_group()
        self._check_schedule()

    def _check_paths(self) -> None:
        """Refuses paths that the system would not find; the command line has expanded them."""
        paths: dict[str, tuple[Callable[..., object], Path | str | None]] = {
            "run_dir": (user_path, self.run_dir),
            "data.dir": (user_path, self.data.dir),
            "checkpoint.dir": (user_address, self.checkpoint.dir),
            "init_weights": (user_weights, self.init_weights),
            "segmentation.class_weights": (user_path, self.segmentation.class_weights),
        }
        for field, (check, path) in paths.items():
            if path is None:
                continue
            check(path)
            if str(path).startswith("~"):
                raise UsageError(
                    f"{field} must be a path that the system knows, not {path}: call "
                    "Path.expanduser on it."
                )

    def _check_norm_group(self) -> None:
        """Refuses statistics over more images than a batch norm sees, or over a part that is left.

        Batch norm takes its statistics over a part of the batch (``accumulate``), over all devices.
        """
        group, (part, rest) = self.model.norm_group, divmod(self.data.batch_size, self.accumulate)
        if group is None or rest:  # The mesh refuses a batch that its parts do not divide.
            return
        if part % group:
            parts = f" in {self.accumulate} parts" if self.accumulate > 1 else ""
            raise UsageError(
                f"model.norm_group must divide the {part} images whose statistics are taken "
                f"together (data.batch_size {self.data.batch_size}{parts}), not {group}."
            )

    def _check_schedule(self) -> None:
        optimizer, milestones = self.optimizer, self.optimizer.milestones
        warmup = optimizer.warmup_epochs
        if warmup >= self.epochs:
            raise UsageError(
                f"optimizer.warmup_epochs must be below the {self.epochs} epochs of the run, not "
                f"{warmup:g}: the rate would never reach its peak."
            )
        if optimizer.schedule == "plateau":
            decay = optimizer.decay
            require(0 < decay < 1, "optimizer.decay of the plateau schedule", decay, "in (0, 1)")
        if milestones and optimizer.schedule != "step":
            raise UsageError("optimizer.milestones need --optimizer.schedule step.")
        if optimizer.schedule == "step" and not milestones:
            raise UsageError("the step schedule needs epochs to step at: --optimizer.milestones.")
        if any(late <= early for early, late in itertools.pairwise((warmup, *milestones))):
            raise UsageError(
                "optimizer.milestones must be after the warm-up and each later than the one before "
                f"it, not {tuple(milestones)} after {warmup:g} epochs of warm-up."
            )

    def to_json(self) -> dict[str, Any]:
        """The resolved config as plain values, with the number of their format."""
        values = {"format": FORMAT, **dataclasses.asdict(self)}
        return json.loads(json.dumps(values, default=str))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "TrainConfig":
        """The config that ``to_json`` came from.

        A field that is missing has its default, which is the value that runs had before the field
        was there.

        Args:
            values: Those of this format or of an older one.

        Raises:
            UsageError: A field that is unknown or of the wrong type, or a newer format.
        """
        import dacite  # --help does without.

        settings = dacite.Config(strict=True, cast=[Path, tuple])
        values = _in_this_format(values)
        try:
            return dacite.from_dict(cls, values, settings)
        # The casts raise the last two.
        except (dacite.DaciteError, TypeError, ValueError) as error:
            raise UsageError(f"this is not the config of a run: {error}.") from error

    def absolute(self, *folders: Path) -> "TrainConfig":
        """The same config, whose paths mean the same from any folder; ``run_dir`` stays as it is.

        Args:
            *folders: The folders that a relative path may start from. The first in which the path
                exists is taken, or else the first; none means the current one.
        """
        starts = [folder.absolute() for folder in folders or (Path(),)]

        def resolve(path: str) -> str:
            candidates = [start / path for start in starts]
            return str(next((found for found in candidates if found.exists()), candidates[0]))

        data, checkpoint, weights = self.data, self.checkpoint, self.init_weights
        if data.dir is not None:
            data = dataclasses.replace(data, dir=Path(resolve(str(data.dir))))
        if checkpoint.dir is not None and "://" not in checkpoint.dir:
            checkpoint = dataclasses.replace(checkpoint, dir=resolve(checkpoint.dir))
        if weights is not None and not weights.startswith("hf-hub:"):
            weights = resolve(weights)
        segmentation, classes = self.segmentation, self.segmentation.class_weights
        if classes not in (None, MEDIAN, ROOT_MEDIAN):
            segmentation = dataclasses.replace(segmentation, class_weights=resolve(classes))
        return dataclasses.replace(
            self,
            data=data,
            checkpoint=checkpoint,
            init_weights=weights,
            segmentation=segmentation,
        )

    def differences(self, other: "TrainConfig", besides: Collection[str] = ()) -> list[str]:
        """Fields in which two experiments differ, as "field: this, not that".

        Fields that change no number, up to rounding, make no difference: where things lie, the
        mesh and the form of the computation, what is logged and when, which checkpoints are kept.

        Args:
            other: The config of the other experiment.
            besides: Further fields that make no difference.
        """
        mine, theirs = _flat(self.to_json()), _flat(other.to_json())
        ignored = {*_NO_DIFFERENCE, *besides}
        if "plateau" not in (self.optimizer.schedule, other.optimizer.schedule):
            ignored.add("eval_every_epochs")  # A plateau is seen where the run validates.
        return [
            f"{field}: {mine.get(field)}, not {theirs.get(field)}"
            for field in sorted(mine.keys() | theirs.keys())
            if field not in ignored and mine.get(field) != theirs.get(field)
        ]

    def shared_facts(self) -> dict[str, str]:
        """The values that several hosts that train together must agree on, by name."""
        facts = {name: str(value) for name, value in _flat(self.to_json()).items()}
        for name in _EACH_ITS_OWN:
            del facts[name]
        packages = ("jax", "jaxlib", "flax", "optax")
        return facts | {name: importlib.metadata.version(name) for name in packages}


_EACH_ITS_OWN = ("compilation_cache", "data.dir", "data.workers")
"""The fields that may differ from host to host."""

_NO_DIFFERENCE = (
    "run_dir",
    "mesh.data",
    "mesh.fsdp",
    "compilation_cache",
    "conv_lowering",
    "deterministic",
    "log_every_steps",
    "model.fused",
    "model.remat",
    "data.eval_batch_size",
    "data.max_corrupt",
    "data.workers",
    "checkpoint.dir",
    "checkpoint.every_epochs",
    "checkpoint.every_steps",
    "checkpoint.keep_last",
    "checkpoint.best_metric",
    "checkpoint.keep_every_epochs",
)


FORMAT = 3
"""Number of the format of ``config.json``. Format 1, before there were tasks, had no number. Before
format 3 a field of the model was not given if it had a certain value."""

_NOT_GIVEN = {
    "zero_init_last": False,
    "dropout": 0.0,
    "stochastic_depth": 0.0,
    "drop_block": 0.0,
    "remat": False,
}
"""The values that stood for fields that were not given."""


def _in_this_format(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a config in the present format, without its number.

    Raises:
        UsageError: The format is unknown.
    """
    values = dict(values)
    number = values.pop("format", 1)
    if number not in range(1, FORMAT + 1):
        raise UsageError(
            f"this config has the format {number!r}, and this version of senet_jax reads the "
            f"formats 1 to {FORMAT}: install the version that wrote it."
        )
    if number == 1 and "devices" in values:
        # The name that the size of the mesh had before it had two axes.
        values["mesh"] = {"data": values.pop("devices")}
    if number < 3 and isinstance(model := values.get("model"), dict):
        values["model"] = {
            name: value
            for name, value in model.items()
            if name not in _NOT_GIVEN or value != _NOT_GIVEN[name]
        }
    return values


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def field_values(config: Any) -> dict[str, Any]:
    """The values of all fields of a dataclass by their dotted names, those of the flags."""
    return _flat(dataclasses.asdict(config))

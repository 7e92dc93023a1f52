"""An experiment as a value: frozen dataclasses, one flag a field.

This file imports neither jax nor the models, so that ``--help`` answers at once.
"""

import dataclasses
import importlib.metadata
import itertools
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal

import dacite

from senet_jax.data.config import DataConfig
from senet_jax.errors import UsageError, require
from senet_jax.files import user_address, user_path, user_weights
from senet_jax.ops.lowerings import Lowering
from senet_jax.ranges import check_numbers


@dataclasses.dataclass(frozen=True)
class AttentionOverrides:
    """What differs from the attention of the named network; None keeps the network's own."""

    kind: str | None = None
    """Another mechanism altogether: "se", "eca", "cbam", "ge", "sk" or "split", or "none" to take
    it out."""
    squeeze: str | None = None
    """Squeeze operator: "avg", "max", "avgmax", "std", or "none" (NoSqueeze)."""
    gate: str | None = None
    """Gate: "sigmoid", "relu", "tanh" or "hard_sigmoid"."""
    activation: str | None = None
    """Non-linearity between the two layers of the excitation."""
    reduction: float | None = None
    """Reduction ratio r."""
    width: int | None = None
    """Width of the hidden layer, instead of a ratio."""
    divisor: int | None = None
    """Round the hidden width to a multiple of this."""
    bias: bool | None = None
    """Biases in the two layers."""
    kernel_size: int | None = None
    """Channels that a gate of ECA sees, or side of the window that a gate of CBAM's pixels sees."""
    norm: bool | None = None
    """Batch norm after the convolution of CBAM's spatial attention."""
    extent: int | None = None
    """Extent ratio of gather-excite: 2, 4, 8, or 0 for the whole map."""
    gather: str | None = None
    """How gather-excite gathers: "avg" or "conv"."""
    mlp: bool | None = None
    """Layers between gather and gate of gather-excite."""
    radix: int | None = None
    """Splits of split attention."""
    min_width: int | None = None
    """Least width of the hidden layer, for selective kernels and split attention."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network."""

    name: str = "cifar_seresnet20"
    """A name that `senet-jax models` lists."""
    attention: AttentionOverrides = AttentionOverrides()
    placement: str | None = None
    """Where the attention stands: "standard", "pre", "post", "identity" or "conv3x3"; None keeps
    the network's own."""
    stages: tuple[int, ...] | None = None
    """Stages that carry the attention, numbered from 2 (conv2_x); None means all."""
    shortcut: str | None = None
    """Shortcut where shapes change: "A", "B", "C" or "D"; None keeps the network's own, here as in
    all fields down to ``compression``, of which each family has those of its papers."""
    residual: bool | None = None
    """Blocks with shortcuts; without them a ResNet is the "plain" network of its paper."""
    blocks: tuple[int, ...] | None = None
    """Blocks of each stage; of a VGG its convolutions, of a DenseNet the layers of each block."""
    widths: tuple[int, ...] | None = None
    """Width of each stage."""
    fc_width: int | None = None
    """Width of the fully connected layers of a VGG."""
    stem: str | None = None
    """What stands before the stages: "imagenet", or "cifar" for images of 32x32 pixels and
    smaller."""
    bottleneck: bool | None = None
    """Bottleneck blocks or layers."""
    cardinality: int | None = None
    """Groups of the 3x3 convolution of a bottleneck."""
    base_width: int | None = None
    """Width of such a group where the stage's width is 64."""
    stride_by: str | None = None
    """What strides in place of a 3x3 convolution: "conv", itself, or an average pool, "pool_before"
    or "pool_after"."""
    growth_rate: int | None = None
    """New channels of each layer of a DenseNet."""
    compression: float | None = None
    """Share of the channels that a transition of a DenseNet keeps."""
    zero_init_last: bool = False
    """Start the last batch norm scale of each block at zero."""
    dropout: float = 0.0
    """Rate of dropout before the classifier."""
    stochastic_depth: float = 0.0
    """Probability to drop the residual branch of the last block; it grows linearly with depth."""
    drop_block: float = 0.0
    """Rate of DropBlock in the last two stages at the end of the run; it rises linearly from 0."""
    norm_group: int | None = None
    """Samples whose statistics a batch norm takes together: those of one device, as in the papers,
    or fewer; None means the whole batch, over all devices."""
    remat: bool = False
    """Remember of each block its input alone, and compute the rest again in the backward pass: less
    memory for about a third more arithmetic."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute precision; parameters, statistics and gates are float32 always."""


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its schedule."""

    name: Literal["sgd", "adamw", "lars", "lamb"] = "sgd"
    """SGD with momentum, AdamW (arXiv 1711.05101), or for very large batches LARS (arXiv
    1708.03888) or LAMB (arXiv 1904.00962), in which a kernel's rate follows its norm; what has no
    weight decay has no rate of its own either."""
    learning_rate: float = 0.1
    """Peak learning rate."""
    base_batch: int | None = None
    """The batch that ``learning_rate`` is for: with another, the rate is scaled in proportion
    (arXiv 1706.02677); None means the rate as it is."""
    schedule: Literal["cosine", "step", "polynomial", "plateau"] = "cosine"
    """After the warm-up: a half cosine down to zero, steps, a power of the share of steps left, or
    a drop whenever the validation loss has stopped falling."""
    warmup_epochs: float = 0.0
    """Epochs over which the rate rises linearly from zero."""
    milestones: tuple[float, ...] = ()
    """Epochs at which the step schedule multiplies the rate by ``decay``."""
    decay: float = 0.1
    """What the step and the plateau schedule multiply with."""
    power: float = 2.0
    """Of the polynomial schedule (LARS: 2; 1 is a straight line)."""
    patience: int = 10
    """Validations in a row without a lower loss (by a ten-thousandth) after which the plateau
    schedule drops the rate."""
    max_drops: int = 3
    """How often the plateau schedule drops the rate at most."""
    momentum: float = 0.9
    """Momentum of SGD and LARS."""
    nesterov: bool = True
    """Nesterov's form of the momentum."""
    weight_decay: float = 1e-4
    """Decay of the kernels; biases and batch norm have none. L2 in the gradient for SGD and LARS,
    decoupled for AdamW and LAMB."""
    trust_coefficient: float = 1e-3
    """LARS: the norm of an update over that of its kernel, before the learning rate."""
    clip_norm: float | None = None
    """Clip the gradient to this global norm."""


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """What is saved, and what is kept."""

    every_epochs: int = 1
    """Save after every so many epochs, and after the last."""
    every_steps: int | None = None
    """Save also every so many steps."""
    keep_last: int = 2
    """How many of the newest checkpoints are kept, besides the best."""
    best_metric: str | None = None
    """By what of the validation a checkpoint is the best, which is kept, such as "val/loss"; None
    means the first metric of the task: of classification "val/top1". Only those that were saved
    right after a validation count."""
    keep_every_epochs: int | None = None
    """Keep for good also what is saved after every so many epochs."""
    dir: str | None = None
    """Folder of this run's checkpoints, if not ``checkpoints`` in the run's own: a folder that all
    hosts see, or gs://BUCKET/FOLDER (``pip install 'senet-jax[gcs]'``). A folder that holds the
    checkpoints of another run is refused. On a disk it is locked while the run trains; a bucket
    has no lock: start no second run in it."""


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How the devices share the work; up to rounding it changes no number."""

    data: int | None = None
    """Devices that share a batch, each group of ``fsdp`` with a whole state; None means all."""
    fsdp: int = 1
    """Devices that also share the state: of parameters, optimizer state and average each keeps its
    part, and a step gathers the parameters (ZeRO, arXiv 1910.02054)."""


MEDIAN = "median"
"""The weights of the classes that are no file: those by median frequency."""


@dataclasses.dataclass(frozen=True)
class SegmentationConfig:
    """The loss of semantic segmentation."""

    aux_weight: float = 0.4
    """Weight of the loss of the auxiliary head, if the network has one (PSPNet: 0.4; the command of
    ResNeSt's authors: 0.2; torchvision: 0.5)."""
    class_weights: str | None = None
    """Weights of the classes in the training loss: "median", by median frequency (arXiv 1411.4734,
    section 6.3.2), or a file of numbers, one a line, in the order of the classes; None weighs all
    pixels alike."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Train a network, from the start or from where it stopped."""

    run_dir: Path = Path("runs/default")
    """Folder of the run: config, checkpoints, metrics, TensorBoard files and curves. The same
    command on the same folder resumes."""
    task: str = "classification"
    """The task: "classification", "segmentation", or one of another package that is installed."""
    epochs: int = 90
    """Passes over the training images."""
    seed: int = 0
    """Seed of initialisation, order and augmentation."""
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    init_weights: str | None = None
    """Start from these weights: a .safetensors, .npz or .pth file in PyTorch's names, or
    "hf-hub:owner/repository"."""
    drop_head: bool = False
    """Of those weights leave the classifier out, and start a fresh one."""
    weights_of: Literal["auto", "average", "raw"] = "auto"
    """Weights that are taken of a training checkpoint of PyTorch's: the moving average, the raw
    ones, or (auto) the average if there is one."""
    frozen: tuple[str, ...] = ()
    """Parameters that do not change: shell patterns of their paths, such as "stem/*" or
    "stage[23]/*". The statistics of their batch norms go on following the data."""
    body_rate: float = 1.0
    """Learning rate of all but the classifier, as a fraction of the classifier's."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes."""
    segmentation: SegmentationConfig = SegmentationConfig()
    conv_lowering: Lowering | None = None
    """Form of the convolutions to which it applies; all others are then XLA's own, which "native"
    means. The forms are described in ops/conv_forms.py and ops/conv_gradients.py. None chooses for
    each convolution what was measured to be fast."""
    ema_decay: float | None = None
    """Decay per step of an average of parameters and statistics, which is then what is
    evaluated; None keeps none."""
    eval_every_epochs: int = 1
    """Validate after every so many epochs, and after the last."""
    log_every_steps: int | None = None
    """Write a line of metrics every so many steps besides the one of each epoch."""
    mesh: MeshConfig = MeshConfig()
    accumulate: int = 1
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
        check_numbers(self)
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
        if classes not in (None, MEDIAN):
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
        """What several hosts that train together must agree on, by name."""
        facts = {name: str(value) for name, value in _flat(self.to_json()).items()}
        for name in _EACH_ITS_OWN:
            del facts[name]
        packages = ("jax", "jaxlib", "flax", "optax")
        return facts | {name: importlib.metadata.version(name) for name in packages}


_EACH_ITS_OWN = ("compilation_cache", "data.dir", "data.workers")
"""What may differ from host to host."""

_NO_DIFFERENCE = (
    "run_dir",
    "mesh.data",
    "mesh.fsdp",
    "compilation_cache",
    "conv_lowering",
    "deterministic",
    "log_every_steps",
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


FORMAT = 2
"""Number of the format of ``config.json``. Format 1, before there were tasks, had no number."""


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

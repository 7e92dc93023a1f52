"""The range of every number that a user can give a config: one table and its check.

This file imports neither jax nor the models, so that ``--help`` answers at once.
"""

import dataclasses
from typing import Any

from senet_jax.errors import UsageError

MOST_STEPS = 2**31 - 1
"""The step of a run and the optimizer's count of updates are int32."""
MOST_EPOCHS = 1_000_000
"""A run keeps a number for each epoch in memory and writes a line of metrics for each."""
MOST_SEED = 2**32 - 1
"""A key of jax has 32 bits of the seed: 2**32 would draw what 0 draws."""
MOST_BATCH = 2**20
"""Images; 16 times the largest batch that was published (LAMB, arXiv 1904.00962: 65,536)."""
MOST_SIDE = 2**14
"""Pixels; the first feature map of one image has 17 GB, and OpenCV takes sides below 2**15."""
MOST_WIDTH = 2**16
"""Channels; a 3x3 convolution from as many to as many has 155 GB of weights."""
MOST_CLASSES = 2**20
"""Logits; ImageNet-21k has 21,843 classes."""
MOST_STAGES = 14
"""Each stage halves the map, and a side has at most 2**14 pixels."""
MOST_BLOCKS = 1024
"""Blocks of a stage, each of which is traced by itself; the deepest published network has 111."""
MOST_DEVICES = 2**20
"""More than any accelerator cluster has."""
LARGE = 1e30
"""Finite in float32, and so are its products with a batch size."""


@dataclasses.dataclass(frozen=True)
class Range:
    """The values that a number, or each number of a tuple, may have."""

    least: float
    greatest: float
    whole: bool = False
    """Whole numbers only."""
    open_below: bool = False
    """``least`` itself is not allowed."""
    open_above: bool = False
    """``greatest`` itself is not allowed."""
    or_zero: bool = False
    """0 is allowed too, and turns off what the field is for."""
    odd: bool = False
    """Odd numbers only."""
    none: str | None = None
    """The meaning of None; without it None is not allowed."""
    count: tuple[int, int] | None = None
    """The fewest and the most numbers of a tuple; None if the field is one number."""

    def check(self, field: str, value: object) -> None:
        """Checks a value.

        Args:
            field: Its name, for the message.
            value: The value.

        Raises:
            UsageError: It is of another type, not finite or out of range.
        """
        if value is None and self.none is not None:
            return
        if self.count is None:
            holds = self._holds(value)
        else:
            fewest, most = self.count
            holds = (
                isinstance(value, tuple | list)
                and fewest <= len(value) <= most
                and all(self._holds(each) for each in value)
            )
        if not holds:
            raise UsageError(f"{field} must be {self.allowed(value)}, not {_shown(value)}.")

    def _holds(self, value: Any) -> bool:
        if not (_is_whole(value) or (isinstance(value, float) and not self.whole)):
            return False
        if self.or_zero and value == 0:
            return True
        # NaN compares as false.
        above = self.least < value if self.open_below else self.least <= value
        below = value < self.greatest if self.open_above else value <= self.greatest
        return above and below and not (self.odd and value % 2 == 0)

    def allowed(self, refused: object = None) -> str:
        """The allowed values, as the end of "must be ...".

        Args:
            refused: A value that is not allowed, which decides what of the range is said: of a
                bound that only a machine sets, not that a number below 0 is not above it.
        """
        low = f"{'above' if self.open_below else 'at least'} {_number(self.least)}"
        high = f"{'below' if self.open_above else 'at most'} {_number(self.greatest)}"
        text = f"{low} and {high}"
        if self.greatest > 1000 and isinstance(refused, int | float):
            text = low if refused <= self.least else high if refused >= self.greatest else text
        if self.odd:
            text = f"odd, {text}"
        if self.whole and not all(map(_is_whole, _as_tuple(refused))):
            text = f"a whole number, {text}"
        if self.or_zero:
            text = f"0, or {text}"
        if self.count is not None:
            fewest, most = self.count
            some = f"{_FEWEST[fewest]}, at most {most}"
            some = f"{fewest} numbers" if fewest == most else some
            text = f"{some}, each {text}"
        return text if self.none is None else f"{text}, or None ({self.none})"


def check_numbers(config: Any, prefix: str = "") -> None:
    """Checks every number of a config against ``RANGES``, those of the configs in it too.

    Args:
        config: A dataclass of ``RANGES``, or one that inherits from it.
        prefix: Stands before the names of the fields in messages, such as "data.".

    Raises:
        UsageError: A number of another type, not finite or out of range.
    """
    check_fields(config, prefix)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            # The flags of an invocation's config have no prefix.
            check_numbers(value, prefix if field.name == "config" else f"{prefix}{field.name}.")


def check_fields(config: Any, prefix: str = "") -> None:
    """Checks as ``check_numbers``, but not the configs in the config; for Linen modules too."""
    for field in dataclasses.fields(config):
        if row := range_of(type(config), field.name):
            row.check(prefix + field.name, getattr(config, field.name))


def range_of(kind: type, field: str) -> Range | None:
    """The row of a field of a dataclass or of a class that it inherits from, or None."""
    rows = (RANGES.get(each.__name__, {}).get(field) for each in kind.__mro__)
    return next((row for row in rows if row is not None), None)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _as_tuple(value: object) -> tuple[object, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


_FEWEST = {0: "no number or more", 1: "one number or more", 2: "two numbers or more"}


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _count(least: int, greatest: int, *, none: str | None = None) -> Range:
    return Range(least, greatest, whole=True, none=none)


def _or_own(row: Range) -> Range:
    """The range of a field that overrides one of the network."""
    return dataclasses.replace(row, none="the network's own")


_RATE = Range(0, 1, open_above=True)
_WIDTH = _count(1, MOST_WIDTH)
_BLOCKS = Range(1, MOST_BLOCKS, whole=True, count=(1, MOST_STAGES))
WIDTHS = dataclasses.replace(_BLOCKS, greatest=MOST_WIDTH)
"""The range of the widths of stages."""
# The network says which stages there are: at most those from 1 to MOST_STAGES + 1.
_STAGES = Range(0, MOST_STAGES + 1, whole=True, none="all", count=(1, MOST_STAGES))
_NORM_GROUP = _count(1, MOST_BATCH, none="the whole batch")
_COMPRESSION = Range(0, 1, open_below=True)
# Below 1 the hidden layer is wider than the map: by at most 100 times.
_REDUCTION = Range(0.01, MOST_WIDTH)
# Channels of ECA, of which a kernel sees those on both sides.
_KERNEL = Range(1, 1023, whole=True, odd=True)
# Copies of the channels; the papers have at most 4.
_RADIX = _count(0, 64)

RANGES: dict[str, dict[str, Range]] = {
    "TrainConfig": {
        "epochs": _count(1, MOST_EPOCHS),
        "seed": _count(0, MOST_SEED),
        # A fraction, and above 1 still a learning rate.
        "body_rate": Range(0, 1e6),
        "label_smoothing": _RATE,
        "ema_decay": Range(0, 1, open_below=True, open_above=True, none="no average"),
        "eval_every_epochs": _count(1, MOST_EPOCHS),
        "log_every_steps": _count(1, MOST_STEPS, none="a line for each epoch only"),
        "accumulate": _count(1, MOST_BATCH),
    },
    "ShowDataConfig": {
        "step": _count(0, MOST_STEPS),
        "images": _count(1, MOST_BATCH),
    },
    "ModelConfig": {
        "stages": _STAGES,
        "blocks": _or_own(_BLOCKS),
        "widths": _or_own(WIDTHS),
        "fc_width": _or_own(_WIDTH),
        "cardinality": _or_own(_WIDTH),
        "base_width": _or_own(_WIDTH),
        "growth_rate": _or_own(_WIDTH),
        "compression": _or_own(_COMPRESSION),
        "dropout": _RATE,
        "stochastic_depth": _RATE,
        "drop_block": _RATE,
        "norm_group": _NORM_GROUP,
    },
    "AttentionOverrides": {
        "reduction": _or_own(_REDUCTION),
        "width": _or_own(_WIDTH),
        "divisor": _or_own(_WIDTH),
        "kernel_size": _or_own(_KERNEL),
        # The module says which of these numbers there are.
        "extent": _or_own(_count(0, 8)),
        "radix": _or_own(_RADIX),
        "min_width": _or_own(_WIDTH),
    },
    "DataConfig": {
        "fraction": Range(0, 1, open_below=True),
        "image_size": _count(1, MOST_SIDE, none="that of the network"),
        "train_sizes": Range(1, MOST_SIDE, whole=True, count=(0, 1000)),
        "batch_size": _count(1, MOST_BATCH),
        "eval_batch_size": _count(1, MOST_BATCH),
        # The image is scaled to the side of the view divided by this.
        "crop_pct": Range(0.01, 1),
        # Processes of one machine.
        "workers": _count(0, 1024),
        "max_corrupt": Range(0, 1),
    },
    "AugmentConfig": {
        # Pixels of images in memory, whose sides are below 100.
        "pad": _count(0, 128),
        "cutout": _count(0, 256),
        "crop_area": Range(0, 1, open_below=True, count=(2, 2)),
        "crop_ratio": Range(0.01, 100, count=(2, 2)),
        "rotation": Range(0, 180),
        "pixel_shift": _count(0, 255),
        "color_jitter": Range(0, 1),
        # At 10 nearly every pixel is 0 or 255.
        "lighting": Range(0, 10),
        # Each is a pass over the image.
        "randaugment_ops": _count(0, 100),
        "randaugment_magnitude": _count(0, 30),
        "erasing": Range(0, 1),
        # Beta(a, a): at 1000 all weights are 1/2, at 1e-6 all are 0 or 1.
        "mixup": Range(1e-6, 1000, or_zero=True),
        "cutmix": Range(1e-6, 1000, or_zero=True),
    },
    "OptimizerConfig": {
        "learning_rate": Range(0, LARGE),
        "base_batch": _count(1, MOST_BATCH, none="the rate as it is"),
        "warmup_epochs": Range(0, MOST_EPOCHS),
        "milestones": Range(0, MOST_EPOCHS, open_below=True, count=(0, 1000)),
        "decay": Range(0, 1, open_below=True),
        "power": Range(0, 100),
        # int32 in the optimizer's state.
        "patience": _count(1, MOST_STEPS),
        # The scale is decay ** max_drops, which is 0 in float32 long before.
        "max_drops": _count(1, 1000),
        "momentum": _RATE,
        "weight_decay": Range(0, 1e6),
        "trust_coefficient": Range(0, 1e6, open_below=True),
        "clip_norm": Range(0, LARGE, open_below=True, none="no clipping"),
    },
    "CheckpointConfig": {
        "every_epochs": _count(1, MOST_EPOCHS),
        "every_steps": _count(1, MOST_STEPS, none="after epochs only"),
        "keep_last": _count(1, MOST_STEPS),
        "keep_every_epochs": _count(1, MOST_EPOCHS, none="none for good"),
    },
    "MeshConfig": {
        "data": _count(1, MOST_DEVICES, none="all devices"),
        "fsdp": _count(1, MOST_DEVICES),
    },
    "HostsConfig": {
        "count": _count(1, MOST_DEVICES, none="what the environment says"),
        "index": _count(0, MOST_DEVICES, none="what the environment says"),
        # Seconds; a week. Sockets take no timeout of 1e10 seconds.
        "timeout": Range(0, 604_800, open_below=True),
    },
    "Invocation": {
        "profile_steps": _count(0, MOST_STEPS),
        "profile_start": _count(1, MOST_STEPS, none="the first after the compilation"),
    },
    "Options": {
        "epochs": _count(1, MOST_EPOCHS, none="those of the recipe"),
        "fraction": Range(0, 1, open_below=True),
        "batch_size": _count(1, MOST_BATCH, none="that of the recipe"),
        # Each is a run.
        "seeds": _count(1, 10_000),
        # Processes of one machine, or tasks of SLURM.
        "at_once": _count(1, 10_000, none="as many as there are places"),
    },
    "SqueezeExciteConfig": {
        "reduction": _REDUCTION,
        "width": dataclasses.replace(_WIDTH, none="by the reduction"),
        "divisor": _WIDTH,
    },
    "ECAConfig": {"kernel_size": dataclasses.replace(_KERNEL, none="by the channels")},
    # A window of pixels; the authors tried 3 and 7.
    "CBAMConfig": {
        "reduction": _REDUCTION,
        "kernel_size": dataclasses.replace(_KERNEL, greatest=63),
    },
    "GatherExciteConfig": {"reduction": _REDUCTION, "extent": _count(0, 8)},
    "SelectiveKernelConfig": {
        "dilations": Range(1, 64, whole=True, count=(2, 16)),
        "reduction": _REDUCTION,
        "min_width": _WIDTH,
    },
    "SplitAttentionConfig": {
        "radix": _RADIX,
        "reduction": _count(1, MOST_WIDTH),
        "min_width": _WIDTH,
    },
    "Backbone": {
        "num_classes": _count(1, MOST_CLASSES),
        # From Python () means no stage; on the command line it would be a value forgotten.
        "stages": dataclasses.replace(_STAGES, count=(0, MOST_STAGES)),
        "dropout": _RATE,
        "norm_group": _NORM_GROUP,
    },
    "BlockConfig": {
        "projection_kernel": _KERNEL,
        "cardinality": _WIDTH,
        "base_width": _WIDTH,
        "reduce_first": _WIDTH,
        "norm_group": _NORM_GROUP,
    },
    "ResNet": {
        "blocks": _BLOCKS,
        "widths": WIDTHS,
        "projection_kernel": _KERNEL,
        "cardinality": _WIDTH,
        "base_width": _WIDTH,
        "reduce_first": _WIDTH,
        # The module says which of these numbers there are.
        "output_stride": _count(1, 32),
        "stochastic_depth": _RATE,
        "drop_block": _RATE,
    },
    "PreactResNet": {
        "blocks": _BLOCKS,
        "widths": WIDTHS,
        "stem_width": _WIDTH,
        "block_dropout": _RATE,
    },
    "ShakeShake": {
        "blocks": _BLOCKS,
        "widths": WIDTHS,
        "stem_width": _WIDTH,
        "cardinality": _WIDTH,
    },
    "VGG": {"blocks": _BLOCKS, "widths": WIDTHS, "fc_width": _WIDTH},
    "DenseNet": {
        "blocks": _BLOCKS,
        "growth_rate": _WIDTH,
        "compression": _COMPRESSION,
        "stem_width": dataclasses.replace(_WIDTH, none="two times the growth rate"),
        "drop_rate": _RATE,
    },
    # One channel of 32 in the stem is left of 1/32; the papers have at most 2.
    "MobileNetV1": {"width": Range(1 / 32, 64), "blocks": _BLOCKS},
    # The module says which of these numbers of groups there are.
    "ShuffleNetV1": {"groups": _count(1, 8), "width": Range(0.01, 64), "blocks": _BLOCKS},
    "Inception": {"epsilon": Range(0, 1, open_below=True)},
    "Segmenter": {
        "num_classes": _count(1, MOST_CLASSES),
        "dropout": _RATE,
        "aux_dropout": _RATE,
        # The module says which stages there are.
        "frozen_norms": Range(1, MOST_STAGES + 1, whole=True, count=(0, MOST_STAGES)),
    },
    "PSPNet": {"grids": Range(1, 64, whole=True, count=(1, 16))},
    "DeepLabV3": {
        "width": _WIDTH,
        "rates": Range(1, MOST_SIDE, whole=True, count=(1, 16)),
        "aspp_dropout": _RATE,
    },
    "DeepLabV3Plus": {"low_width": _WIDTH},
    "SlurmOptions": {
        # SLURM keeps minutes as uint32; a run saves its state 2 minutes before the end.
        "minutes": _count(5, MOST_STEPS),
        "gpus": _count(1, 1024, none="left to the cluster"),
        "cpus": _count(1, 65_536, none="left to the cluster"),
        "memory_gb": _count(1, MOST_DEVICES, none="left to the cluster"),
    },
}
"""By the names of the dataclass or module and of the field, the range of each number."""

"""The presets: experiments by name, among them the recipes of the papers."""

import dataclasses
from pathlib import Path

from senet_jax.config import ModelConfig, OptimizerConfig, SegmentationConfig, TrainConfig
from senet_jax.data.config import AugmentConfig, CropConfig, DataConfig
from senet_jax.errors import choose
from senet_jax.training.detection_presets import DETECTION

_CIFAR = TrainConfig(
    run_dir=Path("runs/cifar10"),
    epochs=164,
    data=DataConfig(augment=AugmentConfig(pad=4, flip=True)),
    optimizer=OptimizerConfig(schedule="step", milestones=(82, 123), nesterov=False),
)

_IMAGENET = DataConfig(
    name="imagenet2012",
    batch_size=256,
    eval_batch_size=256,
    workers=8,
    augment=AugmentConfig(flip=True),
)

SENET = TrainConfig(
    run_dir=Path("runs/imagenet-senet"),
    epochs=100,
    model=ModelConfig(name="legacy_seresnet50"),
    data=dataclasses.replace(
        _IMAGENET,
        batch_size=1024,
        augment=AugmentConfig(flip=True, rotation=10, pixel_shift=20),
    ),
    optimizer=OptimizerConfig(
        learning_rate=0.6,
        base_batch=1024,
        schedule="step",
        milestones=(30, 60, 90),
        nesterov=False,
    ),
)
"""SENet, section 5.1, with the rotation and the pixel jitter that the README of the released models
names. Neither says the weight decay, for which ResNet's stands. Their batch norms saw the 32 images
of a device: --model.norm-group 32. SENet-154 (appendix) had a rate of 1 for batches of 2048,
--model.dropout 0.2, --label-smoothing 0.1, and for the last few epochs frozen batch norms, which
are not offered here."""

RESNEST = TrainConfig(
    run_dir=Path("runs/imagenet-resnest"),
    epochs=270,
    model=ModelConfig(name="resnest50d", zero_init_last=True, drop_block=0.1),
    data=dataclasses.replace(
        _IMAGENET,
        batch_size=8192,
        augment=AugmentConfig(
            flip=True, policy="autoaugment", color_jitter=0.4, lighting=0.1, mixup=0.2
        ),
    ),
    optimizer=OptimizerConfig(learning_rate=0.1, base_batch=256, warmup_epochs=5),
    label_smoothing=0.1,
)
"""ResNeSt, section 4. Batches of 4096 for ResNeSt-101 and of 2048 for 200 and 269, which also have
--model.dropout 0.2; the crops, of 256, 320 and 416 pixels, come with the name of the network, and
larger ones were evaluated with --data.eval-interpolation bicubic."""

SHORT = TrainConfig(
    run_dir=Path("runs/imagenet-short"),
    epochs=16,
    model=ModelConfig(name="seresnet50", dtype="bfloat16"),
    data=dataclasses.replace(_IMAGENET, batch_size=512, train_sizes=(160, 160, 160, 192)),
    optimizer=OptimizerConfig(
        learning_rate=0.5, base_batch=1024, warmup_epochs=2, nesterov=False, weight_decay=5e-5
    ),
    label_smoothing=0.1,
    ema_decay=0.9995,
)
"""For one GPU, after FFCV's 16 epochs: its rate for one GPU, warm-up, weight decay, label smoothing
and sizes, of which the last is below that of the evaluation, since random crops magnify what they
show (FixRes, arXiv 1906.06423). A cosine for its straight line and the average are ours."""

MOBILE = TrainConfig(
    run_dir=Path("runs/imagenet-mobile"),
    epochs=400,
    model=ModelConfig(name="se_mobilenet_v1"),
    data=dataclasses.replace(_IMAGENET, augment=AugmentConfig(flip=True, crop_area=(0.25, 1.0))),
    optimizer=OptimizerConfig(
        learning_rate=0.1,
        base_batch=256,
        schedule="plateau",
        nesterov=False,
        weight_decay=4e-5,
    ),
)
"""SENet, section 5.1, "Mobile setting". The less aggressive scale augmentation and the weight decay
are ShuffleNet's (arXiv 1707.01083, section 4); it does not say the least area, nor SENet the
patience: 0.25 and 10 epochs are ours."""

PLACES365 = dataclasses.replace(
    SENET,
    run_dir=Path("runs/places365-senet"),
    model=ModelConfig(name="legacy_seresnet152"),
    data=dataclasses.replace(SENET.data, name="places365_small"),
)
"""SENet, section 5.2, which refers for its protocol to others: the recipe of section 5.1."""

SCENES = TrainConfig(
    run_dir=Path("runs/scenes-segmentation"),
    task="segmentation",
    epochs=3,
    model=ModelConfig(
        name="deeplabv3plus_seresnet18",
        blocks=(2, 2, 1),
        widths=(32, 64, 96),
        stem_width=32,
        head_width=64,
        low_width=16,
        decoder_layers=1,
        refine_width=24,
        rates=(1, 2),
        aspp_dropout=0.0,
        aux=False,
    ),
    data=DataConfig(name="scenes", batch_size=16, eval_batch_size=128),
    optimizer=OptimizerConfig(
        name="adamw", learning_rate=0.006, warmup_epochs=0.125, weight_decay=1e-2
    ),
    segmentation=SegmentationConfig(class_weights="median", adjust_logits=True),
)
"""Digits in a scene (``data/digit_scenes.py``): nothing to download. Weights of the classes let the
network learn names early; strokes are 2 to 4 pixels wide, so that the logits are refined."""

CAMVID = TrainConfig(
    run_dir=Path("runs/camvid"),
    task="segmentation",
    epochs=30,
    model=ModelConfig(
        name="deeplabv3plus_seresnet18",
        blocks=(2, 2, 2),
        widths=(32, 64, 128),
        stem_width=32,
        output_stride=16,
        head_width=32,
        low_width=16,
        rates=(1,),
        aspp_dropout=0.1,
        aux=False,
    ),
    data=DataConfig(
        name="camvid",
        batch_size=8,
        eval_batch_size=8,
        normalization="imagenet",
        crop=CropConfig(size=(160,), scale=(0.75, 1.5)),
        augment=AugmentConfig(flip=True),
    ),
    optimizer=OptimizerConfig(
        name="adamw",
        learning_rate=0.003,
        schedule="polynomial",
        power=0.9,
        warmup_epochs=1,
        weight_decay=1e-2,
    ),
    segmentation=SegmentationConfig(class_weights="root_median"),
    eval_every_epochs=10,
)
"""CamVid from scratch, images of 240x180 pixels, a small network: minutes on two cores."""

ADE20K = TrainConfig(
    run_dir=Path("runs/ade20k"),
    task="segmentation",
    epochs=120,
    model=ModelConfig(
        name="deeplabv3_resnest50d", align_corners=True, dropout=0.1, drop_channels=True
    ),
    data=DataConfig(
        name="ade20k",
        batch_size=16,
        eval_batch_size=8,
        workers=8,
        normalization="imagenet",
        crop=CropConfig(size=(480,), base=520, scale=(0.5, 2.0)),
        augment=AugmentConfig(flip=True),
    ),
    optimizer=OptimizerConfig(
        learning_rate=0.1,
        base_batch=16,
        schedule="polynomial",
        power=0.9,
        nesterov=False,
        decay_all=True,
    ),
    body_rate=0.1,
    segmentation=SegmentationConfig(aux_weight=0.2),
)
"""ResNeSt's authors (PyTorch-Encoding, ``experiments/segmentation/train_dist.py``): a rate of 0.01
for the backbone and ten times that for the two heads, the longer side scaled to 260 to 1040 pixels,
crops of 480. ResNeSt-101 and 200 were trained for 180 epochs. The backbone started from weights of
ImageNet: --init-weights FILE --drop-head."""

CITYSCAPES = dataclasses.replace(
    ADE20K,
    run_dir=Path("runs/cityscapes"),
    epochs=240,
    data=dataclasses.replace(
        ADE20K.data,
        name="cityscapes",
        crop=dataclasses.replace(ADE20K.data.crop, size=(768,), base=2048),
    ),
)
"""The same for Cityscapes. The scale and the crop are ours: the defaults of the authors' code would
shrink images of 2048x1024 pixels to a quarter."""

VOC2012 = dataclasses.replace(
    ADE20K,
    run_dir=Path("runs/voc2012"),
    epochs=50,
    data=dataclasses.replace(ADE20K.data, name="voc2012"),
    optimizer=dataclasses.replace(ADE20K.optimizer, learning_rate=1e-3),
)
"""The same for PASCAL VOC 2012: a rate of 0.0001 for the backbone, which only weights that know how
to segment can do with: those of a run on voc2012_aug, 80 epochs in the authors' code."""

PASCAL_CONTEXT = dataclasses.replace(
    ADE20K,
    run_dir=Path("runs/pascal_context"),
    epochs=80,
    data=dataclasses.replace(ADE20K.data, name="pascal_context"),
    optimizer=dataclasses.replace(ADE20K.optimizer, learning_rate=0.01),
)
"""The same for PASCAL Context: a rate of 0.001 for the backbone."""

PRESETS: dict[str, TrainConfig] = {
    "demo": TrainConfig(
        run_dir=Path("runs/demo"),
        epochs=30,
        model=ModelConfig(name="cifar_seresnet8"),
        data=DataConfig(name="digits", batch_size=64, augment=AugmentConfig(pad=1)),
        optimizer=OptimizerConfig(warmup_epochs=0.5),
    ),
    "cifar10": _CIFAR,
    "cifar100": dataclasses.replace(
        _CIFAR,
        run_dir=Path("runs/cifar100"),
        data=dataclasses.replace(_CIFAR.data, name="cifar100"),
    ),
    "imagenet-senet": SENET,
    "imagenet-resnest": RESNEST,
    "imagenet-short": SHORT,
    "imagenet-mobile": MOBILE,
    "places365-senet": PLACES365,
    "scenes-segmentation": SCENES,
    "camvid": CAMVID,
    "ade20k": ADE20K,
    "pascal_context": PASCAL_CONTEXT,
    "cityscapes": CITYSCAPES,
    "voc2012": VOC2012,
    **DETECTION,
}
"""``demo`` is what `make demo` runs; ``cifar10`` and ``cifar100`` follow ResNet (arXiv 1512.03385),
section 4.2: 64,000 steps of 128 images, which is 164 epochs, the rate divided by 10 at 82 and
123. The folder of a preset's run is runs/NAME."""


def preset(name: str) -> TrainConfig:
    """Returns a preset.

    Raises:
        UsageError: An unknown name.
    """
    return PRESETS[choose("preset", name, PRESETS)]

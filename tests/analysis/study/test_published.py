"""From configs to the rows of the papers' tables."""

import dataclasses

import pytest

from senet_jax.analysis.study.published import published
from senet_jax.config import AttentionOverrides, ModelConfig, TrainConfig
from senet_jax.data.config import AugmentConfig, DataConfig
from senet_jax.training.presets import preset


@pytest.mark.parametrize(
    ("fields", "top1"),
    [
        ({"name": "cifar_resnet8"}, None),
        ({"name": "cifar_seresnet8"}, None),
        ({"name": "cifar_seresnet8", "attention": AttentionOverrides(squeeze="max")}, 22.57),
        ({"name": "cifar_seresnet8", "attention": AttentionOverrides(reduction=4)}, 22.25),
        ({"name": "cifar_seresnet8", "stages": (3,)}, 23.04),
        ({"name": "cifar_seresnet8", "placement": "pre"}, 22.23),
        ({"name": "cifar_seresnet110"}, 5.21),
        ({"name": "cifar_seresnet110", "placement": "pre"}, 22.23),
        ({"name": "cifar_seresnet8", "placement": "pre", "stages": (3,)}, None),
        ({"name": "skresnet18"}, None),
    ],
)
def test_a_config_has_the_row_of_its_table(fields, top1):
    (found,) = published([TrainConfig(model=ModelConfig(**fields))])
    assert (found and found.value) == top1


NONE = AttentionOverrides(kind="none")


def of(data="imagenet2012", augment=None, label_smoothing=0.0, **fields):
    data = DataConfig(name=data, augment=augment or AugmentConfig())
    return TrainConfig(data=data, model=ModelConfig(**fields), label_smoothing=label_smoothing)


FULL = {
    "augment": AugmentConfig(mixup=0.2, policy="autoaugment"),
    "label_smoothing": 0.1,
}
RESNET50D = {"name": "resnet50d", "drop_block": 0.1, "zero_init_last": True}


@pytest.mark.parametrize(
    ("configs", "top1"),
    [
        # A pair of SENet's Table 2; and the same networks in an ablation of section 6.
        (
            [of(name="legacy_seresnet50", attention=NONE), of(name="legacy_seresnet50")],
            [24.80, 23.29],
        ),
        (
            [
                of(name="legacy_seresnet50", attention=NONE),
                of(name="legacy_seresnet50"),
                of(name="legacy_seresnet50", attention=AttentionOverrides(gate="relu")),
            ],
            [23.30, 22.28, 23.47],
        ),
        # ResNet-50 is in three papers: that which has the most of the others counts.
        (
            [of(name="resnet50"), of(name="resnet50", cardinality=4, base_width=24)],
            [23.9, 22.6],
        ),
        ([of(name="resnet50", residual=False), of(name="resnet50")], [31.2, 23.9]),
        (
            [of(name="vgg16_bn"), of(name="vgg16_bn", attention=AttentionOverrides(kind="se"))],
            [27.02, 25.22],
        ),
        ([of(name="densenet121"), of(name="se_densenet121")], [25.0, None]),
        (
            [
                of("cifar10", name="cifar_resnet8", blocks=(3, 3, 3)),
                of("cifar10", name="cifar_resnet8", blocks=(9, 9, 9)),
                of("cifar10", name="cifar_resnet8", blocks=(9, 9, 9), residual=False),
            ],
            [8.75, 6.97, None],
        ),
        ([of("cifar100", name="cifar_densenet_100_12", growth_rate=24)], [19.25]),
        (
            [of(name="resnet34", residual=False), of(name="resnet34", shortcut="A")],
            [28.54, 25.03],
        ),
        (
            [
                of(**RESNET50D),
                of(**RESNET50D, label_smoothing=0.1),
                of(**RESNET50D, **FULL),
                of(name="resnest50_fast_2s1x64d", **FULL),
                of(name="resnest50_fast_2s1x64d"),
            ],
            [None, 21.69, 20.59, 19.36, None],
        ),
    ],
)
def test_configs_that_are_compared_have_the_rows_of_one_paper(configs, top1):
    found = published(configs)
    assert [row and row.value for row in found] == top1
    assert len({row.paper for row in found if row}) == 1


@pytest.mark.parametrize(
    ("changed", "table"),
    [
        ({"attention": AttentionOverrides(reduction=4)}, "Table 10"),
        ({"attention": AttentionOverrides(squeeze="max")}, "Table 11"),
        ({"attention": AttentionOverrides(gate="tanh")}, "Table 12"),
        ({"stages": (3,)}, "Table 13"),
        ({"placement": "pre"}, "Table 14"),
        ({"attention": AttentionOverrides(squeeze="none")}, "Table 16"),
    ],
)
def test_the_standard_se_is_of_the_table_of_its_ablation(changed, table):
    standard, other = published(
        [of(name="legacy_seresnet50", **fields) for fields in ({}, changed)]
        + [of(name="legacy_seresnet50", attention=NONE)]
    )[:2]
    assert (standard.value, standard.table, other.table) == (22.28, table, table)


def scenes(name, data="ade20k", **fields):
    return TrainConfig(
        task="segmentation", data=DataConfig(name=data), model=ModelConfig(name=name, **fields)
    )


@pytest.mark.parametrize(
    ("configs", "rows"),
    [
        # The pair of the abstract; ResNeSt's own recipe has fields of training and align_corners.
        (
            [
                scenes("deeplabv3_resnet50"),
                scenes("deeplabv3_resnest50d", align_corners=True, dropout=0.1, aux=False),
            ],
            [(None, 42.1), (81.17, 45.12)],
        ),
        # GluonCV alone has both.
        (
            [scenes("deeplabv3_resnet101"), scenes("deeplabv3_resnest101e")],
            [(81.1, 44.1), (82.1, 46.9)],
        ),
        # mmsegmentation alone has all heads.
        (
            [
                scenes(f"{head}_resnest101e", "cityscapes")
                for head in ("fcn", "pspnet", "deeplabv3", "deeplabv3plus")
            ],
            [(None, 77.56), (None, 78.57), (None, 79.67), (None, 79.62)],
        ),
        ([scenes("fcn_resnest50d", "pascal_context")], [(79.19, 51.98)]),
        (
            [
                scenes("deeplabv3_resnest50d", "camvid"),
                scenes("deeplabv3_resnest50d", output_stride=16),
                scenes("deeplabv3_resnest50d", rates=(6, 12, 18)),
                scenes("deeplabv3_resnest50d", attention=AttentionOverrides(radix=1)),
            ],
            [None] * 4,
        ),
    ],
)
def test_networks_of_segmentation_have_the_rows_of_one_table(configs, rows):
    found = published(configs)
    assert [row and (row.pixel_accuracy, row.value) for row in found] == rows
    assert len({row.paper for row in found if row}) <= 1


def test_a_row_of_segmentation_tells_its_pixel_accuracy():
    (with_one,) = published([scenes("fcn_resnest50d", "pascal_context")])
    assert with_one.summary == "FCN ResNeSt-50 on PASCAL Context, pixAcc 79.19 %"
    (without,) = published([scenes("fcn_resnest101e", "cityscapes")])
    assert without.summary == without.what == "FCN ResNeSt-101 on Cityscapes"


def coco(name, backbone=None, **fields):
    config = preset(name)
    head, own = config.model.name.split("_", 1)
    model = dataclasses.replace(config.model, name=f"{head}_{backbone or own[:-4]}_fpn", **fields)
    return dataclasses.replace(config, model=model)


@pytest.mark.parametrize(
    ("configs", "rows"),
    [
        (
            [coco("coco-senet", attention=NONE), coco("coco-senet", frozen_stages=2)],
            [("AP50 57.90 %", 38.0), ("AP50 61.00 %", 40.4)],
        ),
        (
            [coco("coco-faster", "resnet50"), coco("coco-faster"), coco("coco-cascade")],
            [("COCO", 39.25), ("COCO", 42.33), ("COCO", 45.41)],
        ),
        (
            [coco("coco"), coco("coco-cascade-mask"), coco("coco-cascade-mask-3x")],
            [("mask AP 38.14 %", 42.81), ("mask AP 39.55 %", 46.19), ("mask AP 44.21 %", 50.54)],
        ),
        ([coco("coco-torchvision")], [("mask AP 34.60 %", 37.9)]),
        ([coco("coco", detections=50)], [None]),
    ],
)
def test_detectors_have_the_rows_of_one_table(configs, rows):
    found = [row and (row.summary, row.value) for row in published(configs)]
    for row, expected in zip(found, rows, strict=True):
        if expected is None:
            assert row is None
        else:
            assert row[0].endswith(expected[0])
            assert row[1] == expected[1]

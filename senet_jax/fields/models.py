"""The fields of the families of networks.

A module of ``senet_jax.models`` inherits those of its family: ``class ResNet(ResNetFields,
Backbone)``. To add a field is to declare it here and to use it in the module; a new family is a row
of ``FAMILIES``, too.
"""

import dataclasses
from typing import Annotated, Literal

from senet_jax.ranges import (
    KERNEL,
    MOST_BATCH,
    MOST_BLOCKS,
    MOST_STAGES,
    MOST_WIDTH,
    RATE,
    Range,
    whole,
)
from senet_jax.ranges import WIDTH as ONE_WIDTH

Width = Annotated[int, ONE_WIDTH]
Rate = Annotated[float, RATE]
Blocks = Annotated[tuple[int, ...], whole(1, MOST_BLOCKS, count=(1, MOST_STAGES))]
Widths = Annotated[tuple[int, ...], whole(1, MOST_WIDTH, count=(1, MOST_STAGES))]

Placement = Literal["standard", "pre", "post", "identity", "conv3x3"]
ShortcutOption = Literal["A", "B", "C", "D"]
StrideBy = Literal["conv", "pool_before", "pool_after"]
StrideOn = Literal["conv1", "conv2"]
StemKind = Literal["imagenet", "caffe", "strided", "cifar"]
SmallStemKind = Literal["imagenet", "cifar"]
StemWidth = int | tuple[int, int, int]
DilatedForm = Literal["timm", "authors"]
Groups = Literal[1, 2, 3, 4, 8]
Forward = Literal["shake", "even"]
Backward = Literal["shake", "even", "keep"]


@dataclasses.dataclass(kw_only=True, init=False, repr=False, eq=False)
class BackboneFields:
    """Fields of every network."""

    # The network says which stages there are: at most those from 1 to MOST_STAGES + 1.
    stages: Annotated[
        tuple[int, ...] | None, whole(0, MOST_STAGES + 1, none="all", count=(0, MOST_STAGES))
    ] = None
    """Stages that carry the attention, by the family's numbers: of a ResNet from 2 (conv2_x). None
    means all."""
    dropout: Rate = 0.0
    """Rate of dropout before the classifier."""
    norm_group: Annotated[int | None, whole(1, MOST_BATCH, none="the whole batch")] = None
    """Samples of the batch whose statistics a batch norm takes together; None means all of them, on
    all devices. If this is at most the batch of a device (32 in the papers), batch norm needs no
    communication between devices."""
    remat: bool = False
    """Keep the input of each block alone, and compute the rest again in the backward pass: less
    memory for about a third more arithmetic, the same results and parameters."""


# Hashable: the blocks, which are values, have the fields of their network.
@dataclasses.dataclass(kw_only=True, repr=False, unsafe_hash=True)
class ResNetFields(BackboneFields):
    """Fields of ResNet, ResNeXt, SENet, ResNeSt and SKNet."""

    placement: Placement = "standard"
    """Place of the attention (SENet, section 6.5 and Figure 5): "standard", after the last
    batch norm and before the addition; "pre", before the residual unit, on its input; "post",
    after the addition and its ReLU; "identity", on the shortcut, after any projection; "conv3x3",
    after the 3x3 convolution and its batch norm, before the ReLU (in a basic block, the first).
    Selective kernels and split attention replace a 3x3 convolution and have no other place."""
    blocks: Blocks
    """Blocks of each stage."""
    widths: Widths = (64, 128, 256, 512)
    """Width of each stage; a bottleneck's output has four times as many channels."""
    bottleneck: bool = True
    """Bottleneck blocks; otherwise basic ones."""
    stem: StemKind = "imagenet"
    """"imagenet": a convolution of stride 2 and a 3x3 max pool of stride 2, padded on all sides;
    "caffe": the same with the pool unpadded in ceil mode; "strided": the same with a 3x3
    convolution of stride 2 for a pool (ResNet-RS, arXiv 2103.07579); "cifar": a 3x3 convolution of
    stride 1 and no pool, for images of 32x32 pixels and smaller."""
    stem_width: Annotated[StemWidth, whole(1, MOST_WIDTH, count=(3, 3), or_one=True)] = 64
    """Channels of the stem: of its 7x7 convolution or, if three, of the 3x3 convolutions that
    stand for it (the deep stem of ResNet-C, arXiv 1812.01187, section 4)."""
    shortcut: ShortcutOption = "B"
    """The shortcut where shapes change (ResNet, arXiv 1512.03385, section 4.1): "A" subsamples
    and pads with zero channels; "B" is a 1x1 projection; "C" projects in every block; "D" averages
    2x2 before a projection of stride 1 (ResNet-D, arXiv 1812.01187, section 4)."""
    residual: bool = True
    """Shortcuts of the blocks; without them their branch is all there is, as in the plain
    networks (ResNet, section 3.3)."""
    projection_kernel: Annotated[int, KERNEL] = 1
    """Side of the projection's kernel where the block has a stride (SENet-154: 3)."""
    cardinality: Width = 1
    """Groups of the 3x3 convolution of a bottleneck (ResNeXt, arXiv 1611.05431)."""
    base_width: Width = 64
    """Width of such a group where the stage's width is 64 (ResNeXt-50 32x4d: 4)."""
    reduce_first: Width = 1
    """Divides the width of the first 1x1 of a bottleneck (SENet-154: 2)."""
    stride_on: StrideOn = "conv2"
    """The convolution of a bottleneck that has the stride: the first 1x1 (the paper's, Caffe's) or
    the 3x3 (torchvision's). The parameters are the same, the network is not."""
    stride_by: StrideBy = "conv"
    """The layer that strides where a 3x3 would: itself, or a 3x3 average pool of that stride after
    it (ResNeSt, arXiv 2004.08955, section 4.1) or before it (its fast variants)."""
    zero_init_last: bool = False
    """Start the scale of the last batch norm of the residual branch at zero."""
    relu_before_attention: bool = False
    """A ReLU after the last batch norm of a basic block, before its attention, which the networks
    released as ``legacy_seresnet18`` and ``34`` have."""
    fused: bool = True
    """In training, join attention that stands right behind a batch norm to it, if means are all
    that the attention takes of the maps. The result is the same to rounding, with fewer passes over
    the maps."""
    output_stride: Literal[8, 16, 32] = 32
    """Largest stride: where a stage would pass it, its convolutions are dilated instead (DeepLab,
    arXiv 1706.05587). The parameters stay the same."""
    dilated: DilatedForm = "timm"
    """The first block of a dilated stage, where its stride would be a pool: "timm" leaves that pool
    out, and the shortcut D averages 2x2 with stride 1; "authors" keeps the 3x3 pool with stride 1,
    and the shortcut D does not average (ResNeSt's authors, for segmentation)."""
    stochastic_depth: Rate = 0.0
    """Probability to drop the residual branch of the last block; it grows linearly with depth
    from the first block's, 1 / blocks of it (arXiv 1603.09382, eq. 4)."""
    drop_block: Rate = 0.0
    """Rate of DropBlock after each batch norm of the residual branches of the last two stages. In a
    run it rises linearly from 0 to this."""


@dataclasses.dataclass(kw_only=True, init=False, repr=False, eq=False)
class PreactResNetFields(BackboneFields):
    """Fields of pre-activation and wide ResNets."""

    blocks: Blocks
    """Blocks of each stage."""
    widths: Widths = (16, 32, 64)
    """Width of each stage; a bottleneck's output has four times as many channels."""
    stem_width: Width = 16
    """Channels of the stem."""
    bottleneck: bool = False
    """Bottleneck blocks; otherwise basic ones."""
    stride_on: StrideOn = "conv1"
    """The convolution of a bottleneck that has the stride: the first 1x1 (the authors' code) or the
    3x3. The parameters are the same, the network is not."""
    block_dropout: Rate = 0.0
    """Rate of dropout before the last convolution of each block: in a wide ResNet between its two
    3x3, after the ReLU (1605.07146, section 2.4)."""


@dataclasses.dataclass(kw_only=True, init=False, repr=False, eq=False)
class ShakeShakeFields(BackboneFields):
    """Fields of Shake-Shake networks."""

    blocks: Blocks
    """Blocks of each stage."""
    widths: Widths
    """Width of each stage; a bottleneck's output has four times as many channels."""
    stem_width: Width = 16
    """Channels of the stem."""
    bottleneck: bool = False
    """ResNeXt's bottleneck blocks; otherwise basic ones."""
    cardinality: Width = 1
    """Groups of the 3x3 convolution of a bottleneck, each of the stage's width."""
    forward: Forward = "shake"
    """Weights of the branches in training: "shake", by numbers drawn for each image; "even",
    by halves, as in evaluation."""
    backward: Backward = "shake"
    """Weights of their gradients: "shake", by numbers drawn anew; "even", by halves; "keep", by
    those of the forward pass."""


@dataclasses.dataclass(kw_only=True, init=False, repr=False, eq=False)
class VGGFields(BackboneFields):
    """Fields of VGG."""

    blocks: Blocks
    """Convolutions of each stage."""
    widths: Widths = (64, 128, 256, 512, 512)
    """Width of each stage."""
    fc_width: Width = 4096
    """Width of ``fc6`` and ``fc7``, the fully connected layers before the classifier."""
    norm: bool = False
    """Batch norm after every convolution of the stages, which keeps its bias (as in torchvision;
    the paper has none)."""
    pointwise_third: bool = False
    """The third convolution of a stage is 1x1 rather than 3x3 (configuration C)."""


@dataclasses.dataclass(kw_only=True, init=False, repr=False, eq=False)
class DenseNetFields(BackboneFields):
    """Fields of DenseNet."""

    placement: Literal["layer", "block"] = "layer"
    """Place of the attention: "layer", on the k new channels of each layer, before they are
    concatenated; "block", on the whole output of each dense block, before the transition and, after
    the last block, before the last batch norm. The SENet paper has no DenseNet; "layer" is its
    standard place, on what a unit adds to the features before it."""
    blocks: Blocks
    """Layers of each dense block."""
    growth_rate: Width = 32
    """New channels of each layer, the paper's k."""
    bottleneck: bool = True
    """Layers of a 1x1 convolution to 4k channels before the 3x3 (DenseNet-B); otherwise of the
    3x3 alone."""
    compression: Annotated[float, Range(0, 1, open_below=True)] = 0.5
    """Share of the channels that a transition keeps, rounded down: the paper's theta, above 0 and
    at most 1, which keeps all; below 1 is DenseNet-C."""
    stem: SmallStemKind = "imagenet"
    """"imagenet": a 7x7 convolution of stride 2, batch norm, ReLU and a 3x3 max pool of stride 2;
    "cifar": a 3x3 convolution of stride 1 alone, for images of 32x32 pixels and smaller."""
    stem_width: Annotated[int | None, whole(1, MOST_WIDTH, none="two times the growth rate")] = None
    """Channels of the stem; None means 2k."""
    drop_rate: Rate = 0.0
    """Rate of dropout after each convolution but the stem's (section 4.2; the paper uses 0.2 where
    training has no augmentation)."""


@dataclasses.dataclass(kw_only=True, init=False, repr=False, eq=False)
class MobileNetV1Fields(BackboneFields):
    """Fields of MobileNet-v1."""

    # One channel of 32 in the stem is left of 1/32; the papers have at most 2.
    width: Annotated[float, Range(1 / 32, 64)] = 1.0
    """The width multiplier: the channels of every layer are multiplied by it and rounded down."""
    blocks: Blocks = (1, 2, 2, 6, 2)
    """Blocks of each stage; at most five."""
    stem: SmallStemKind = "imagenet"
    """"imagenet": of stride 2; "cifar": of stride 1, for images of 32x32 pixels and smaller."""


@dataclasses.dataclass(kw_only=True, init=False, repr=False, eq=False)
class ShuffleNetV1Fields(BackboneFields):
    """Fields of ShuffleNet-v1."""

    groups: Groups = 3
    """Groups of the 1x1 convolutions. The channels grow with them, so that the cost stays (Table
    1). The first 1x1 of stage 2 has no groups, as its input is narrow."""
    width: Annotated[float, Range(0.01, 64)] = 1.0
    """The width multiplier of the stages, whose channels are rounded to the nearest that groups and
    bottlenecks divide (2 and 4 groups need it at 0.5 and 0.25). The stem's 24 channels do not
    follow it but are 12 below 1 (16 with 8 groups, which must divide what they leave) and 48 from 2
    on. The authors' code has these for 0.5, 1.5 and 2 with 3 groups; with them, and not with 24 or
    24 times the width throughout, the networks cost the published 13 (0.25), 38, 292 and 524
    MFLOPs, and 40 (0.5) with 8 groups."""
    blocks: Blocks = (4, 8, 4)
    """Units of each stage."""
    stem: SmallStemKind = "imagenet"
    """"imagenet": a convolution and a pool of stride 2 each; "cifar": a convolution of stride 1 and
    no pool, for images of 32x32 pixels and smaller."""


@dataclasses.dataclass(kw_only=True, init=False, repr=False, eq=False)
class InceptionFields(BackboneFields):
    """Fields of BN-Inception and Inception-v3."""

    conv_bias: bool = False
    """Biases in the convolutions, though batch norms follow: BN-Inception's weights do."""
    epsilon: Annotated[float, Range(0, 1, open_below=True)] = 1e-5
    """Added to the variance by the batch norms."""


@dataclasses.dataclass(kw_only=True, init=False, repr=False, eq=False)
class InceptionResNetFields(InceptionFields):
    """Fields of Inception-ResNet-v2."""

    placement: Literal["before_scale", "after_scale"] = "before_scale"
    """Place of the attention: "before_scale" or "after_scale". The scale belongs to the
    addition (Inception-ResNet, section 3.3: residuals are scaled down before they are added), and
    SE to the residual function, so that the default is before it: the gate then sees all blocks'
    branches at the size that batch norm gives them, and not 5 to 10 times smaller."""


FAMILIES: dict[str, type[BackboneFields]] = {
    "ResNet": ResNetFields,
    "PreactResNet": PreactResNetFields,
    "ShakeShake": ShakeShakeFields,
    "VGG": VGGFields,
    "DenseNet": DenseNetFields,
    "MobileNetV1": MobileNetV1Fields,
    "ShuffleNetV1": ShuffleNetV1Fields,
    "Inception": InceptionFields,
    "InceptionResNet": InceptionResNetFields,
}
"""The families of classifiers whose fields are flags, by the names of their modules."""

"""PyTorch twins of networks that timm lacks, written as a PyTorch user writes them.

The parameters have the names and shapes that ``senet_jax.interchange.to_torch`` writes, so that
``load_state_dict(strict=True)`` takes the weights of the senet_jax network
(``experiments.benchmarks.harness.parity`` compares the logits). Nothing but PyTorch is needed.
"""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional


class SqueezeExcite(nn.Module):
    """Squeeze-and-Excitation (arXiv 1709.01507) with channels // reduction hidden channels."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Rescales the channels of feature maps (n, c, h, w)."""
        gate = x.mean((2, 3), keepdim=True)
        gate = self.fc2(functional.relu(self.fc1(gate), inplace=True))
        return x * torch.sigmoid(gate)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, whose shortcut subsamples and pads with zeros (arXiv 1512.03385)."""

    def __init__(
        self, channels: int, width: int, stride: int, *, se: bool, reduction: int = 16
    ) -> None:
        super().__init__()
        self.stride, self.added = stride, width - channels
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.se = SqueezeExcite(width, reduction) if se else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (n, channels, h, w) to (n, width, h / stride, w / stride)."""
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.se(self.bn2(self.conv2(y)))
        if self.stride > 1 or self.added:
            before = self.added // 2
            x = x[:, :, :: self.stride, :: self.stride]
            x = functional.pad(x, (0, 0, 0, 0, before, self.added - before))
        return functional.relu(y + x, inplace=True)


class CifarResNet(nn.Module):
    """The ResNet of 6n + 2 layers for CIFAR (arXiv 1512.03385, section 4.2)."""

    def __init__(
        self, depth: int, num_classes: int = 10, *, se: bool = False, reduction: int = 16
    ) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        block = functools.partial(BasicBlock, se=se, reduction=reduction)
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(block, blocks, 16, 16, 1)
        self.layer2 = self._stage(block, blocks, 16, 32, 2)
        self.layer3 = self._stage(block, blocks, 32, 64, 2)
        self.linear = nn.Linear(64, num_classes)

    @staticmethod
    def _stage(
        block: Callable[[int, int, int], nn.Module],
        blocks: int,
        channels: int,
        width: int,
        stride: int,
    ) -> nn.Sequential:
        rest = [block(width, width, 1) for _ in range(blocks - 1)]
        return nn.Sequential(block(channels, width, stride), *rest)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps images (n, 3, h, w) to logits (n, num_classes)."""
        x = functional.relu(self.bn1(self.conv1(images)), inplace=True)
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


class DenseLayer(nn.Module):
    """Batch norm, ReLU, 1x1, batch norm, ReLU and 3x3 over all maps of the block so far."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Maps the concatenation of maps (n, c_i, h, w) to the new ones (n, growth, h, w)."""
        x = self.conv1(functional.relu(self.bn1(torch.cat(maps, 1)), inplace=True))
        return self.conv2(functional.relu(self.bn2(x), inplace=True))


class DenseBlock(nn.ModuleDict):
    """Layers each of which sees the outputs of all layers before it."""

    def __init__(self, layers: int, channels: int, growth: int) -> None:
        super().__init__()
        for index in range(layers):
            self[f"layer{index + 1}"] = DenseLayer(channels + index * growth, growth)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (n, c, h, w) to (n, c + layers * growth, h, w)."""
        maps = [x]
        for layer in self.values():
            maps.append(layer(maps))
        return torch.cat(maps, 1)


class Transition(nn.Module):
    """Batch norm, ReLU, 1x1 convolution and 2x2 average pool."""

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, features, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (n, channels, h, w) to (n, features, h / 2, w / 2)."""
        return functional.avg_pool2d(self.conv(functional.relu(self.bn(x), inplace=True)), 2)


class CifarDenseNet(nn.Module):
    """The DenseNet-BC with compression 0.5 for CIFAR (arXiv 1608.06993, sections 3 and 4)."""

    def __init__(self, depth: int, growth: int, num_classes: int = 10) -> None:
        super().__init__()
        layers, channels = (depth - 4) // 6, 2 * growth
        self.stem = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.stage2 = DenseBlock(layers, channels, growth)
        channels += layers * growth
        self.transition2 = Transition(channels, channels // 2)
        self.stage3 = DenseBlock(layers, channels // 2, growth)
        channels = channels // 2 + layers * growth
        self.transition3 = Transition(channels, channels // 2)
        self.stage4 = DenseBlock(layers, channels // 2, growth)
        channels = channels // 2 + layers * growth
        self.final_bn = nn.BatchNorm2d(channels)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps images (n, 3, h, w) to logits (n, num_classes)."""
        x = self.transition2(self.stage2(self.stem(images)))
        x = self.stage4(self.transition3(self.stage3(x)))
        x = functional.relu(self.final_bn(x), inplace=True)
        return self.head(x.mean((2, 3)))


class WideBlock(nn.Module):
    """A pre-activation block of two 3x3 convolutions (arXiv 1605.07146, Figure 1a).

    Where the shape changes, the shortcut is a 1x1 convolution of the activated input.
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        if stride > 1 or channels != width:
            self.shortcut = nn.Conv2d(channels, width, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (n, channels, h, w) to (n, width, h / stride, w / stride)."""
        y = functional.relu(self.bn1(x), inplace=True)
        shortcut = self.shortcut(y) if hasattr(self, "shortcut") else x
        y = functional.relu(self.bn2(self.conv1(y)), inplace=True)
        return self.conv2(y) + shortcut


class WideResNet(nn.Module):
    """The wide residual network WRN-depth-factor for CIFAR (arXiv 1605.07146, Table 1)."""

    def __init__(self, depth: int, factor: int, num_classes: int = 10) -> None:
        super().__init__()
        channels, blocks = 16, (depth - 4) // 6
        self.stem = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        for stage in (2, 3, 4):
            width = factor * 16 * 2 ** (stage - 2)
            modules = nn.Sequential()
            for index in range(1, blocks + 1):
                stride = 2 if stage > 2 and index == 1 else 1
                modules.add_module(f"block{index}", WideBlock(channels, width, stride))
                channels = width
            self.add_module(f"stage{stage}", modules)
        self.bn = nn.BatchNorm2d(channels)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps images (n, 3, h, w) to logits (n, num_classes)."""
        x = self.stage4(self.stage3(self.stage2(self.stem(images))))
        x = functional.relu(self.bn(x), inplace=True)
        return self.head(x.mean((2, 3)))


class SeparableBlock(nn.Module):
    """A 3x3 depthwise and a 1x1 convolution, each with batch norm and ReLU."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            channels, channels, 3, stride, padding=1, groups=channels, bias=False
        )
        self.depthwise_bn = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, width, 1, bias=False)
        self.pointwise_bn = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (n, channels, h, w) to (n, width, h / stride, w / stride)."""
        x = functional.relu(self.depthwise_bn(self.depthwise(x)), inplace=True)
        return functional.relu(self.pointwise_bn(self.pointwise(x)), inplace=True)


class ConvNorm(nn.Module):
    """A 3x3 convolution of stride 2, batch norm and ReLU."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, 2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (n, channels, h, w) to (n, width, h / 2, w / 2)."""
        return functional.relu(self.bn(self.conv(x)), inplace=True)


class MobileNetV1(nn.Module):
    """Depthwise separable convolutions (arXiv 1704.04861, Table 1) with ReLU, not timm's ReLU6."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        channels = 32
        self.stem = ConvNorm(3, channels)
        stages = ((64, 1), (128, 2), (256, 2), (512, 6), (1024, 2))
        for stage, (width, blocks) in enumerate(stages, 1):
            modules = nn.Sequential()
            for index in range(1, blocks + 1):
                stride = 2 if stage > 1 and index == 1 else 1
                modules.add_module(f"block{index}", SeparableBlock(channels, width, stride))
                channels = width
            self.add_module(f"stage{stage}", modules)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps images (n, 3, h, w) to logits (n, num_classes)."""
        x = self.stage2(self.stage1(self.stem(images)))
        x = self.stage5(self.stage4(self.stage3(x)))
        return self.head(x.mean((2, 3)))


TWINS: dict[str, Callable[..., nn.Module]] = {
    **{
        f"cifar_{prefix}resnet{depth}": functools.partial(CifarResNet, depth, se=bool(prefix))
        for prefix in ("", "se")
        for depth in (8, 20, 32, 44, 56, 110)
    },
    "cifar_densenet_bc_100_12": functools.partial(CifarDenseNet, 100, 12),
    "cifar_wrn16_8": functools.partial(WideResNet, 16, 8),
    "cifar_wrn28_10": functools.partial(WideResNet, 28, 10),
    "cifar_wrn40_4": functools.partial(WideResNet, 40, 4),
    "mobilenet_v1": MobileNetV1,
}
"""Constructors, which take ``num_classes``, by senet_jax's name of the network."""

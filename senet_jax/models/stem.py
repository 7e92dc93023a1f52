"""The layers before the first residual block."""

from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.errors import UsageError
from senet_jax.fields.models import StemKind, StemWidth
from senet_jax.ops.compute import Compute
from senet_jax.ops.pooling import max_pool


class Stem(nn.Module):
    """Convolution and pooling, the first stage of the papers.

    Returns the maps before and after the pool.

    Raises:
        UsageError: Images that the pool cannot take.
    """

    kind: StemKind
    """See ``ResNet.stem``."""
    width: StemWidth
    """See ``ResNet.stem_width``."""
    compute: Compute
    """Precision and norms of its layers."""

    @property
    def strides(self) -> tuple[int, int]:
        """Stride before and after the pool."""
        return (1, 1) if self.kind == "cifar" else (2, 4)

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"]
    ) -> tuple[Float[Array, "n h2 w2 c2"], Float[Array, "n h4 w4 c2"]]:
        def layer(
            x: Array, width: int, kernel_size: int, stride: int, prefix: str, n: str, relu: bool
        ) -> Array:
            conv = self.compute.conv(width, kernel_size, stride=stride, name=f"{prefix}conv{n}")
            return self.compute.norm(f"{prefix}bn{n}")(conv(x), relu=relu)

        size = x.shape[1:3]
        if self.kind == "caffe" and min(size) < 3:
            raise UsageError(
                f"images of {size[0]}x{size[1]} pixels are too small: the unpadded pool of this "
                'stem needs 3; use larger images or stem="imagenet".'
            )
        pooled = self.kind in ("imagenet", "caffe")
        if isinstance(self.width, tuple):
            for index, width in enumerate(self.width, 1):
                stride, relu = 2 if index == 1 else 1, index < 3 or not pooled
                x = layer(x, width, 3, stride, "", str(index), relu)
        elif self.kind == "cifar":
            x = layer(x, self.width, 3, 1, "", "", True)
            return x, x
        else:
            x = layer(x, self.width, 7, 2, "", "", not pooled)
        if self.kind == "strided":
            return x, layer(x, x.shape[-1], 3, 2, "pool_", "", True)
        window = {"ceil_mode": True} if self.kind == "caffe" else {"pad": 1}
        return nn.relu(x), max_pool(x, 3, 2, relu=True, **window)

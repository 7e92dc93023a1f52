"""The names of the forms of convolutions, without JAX, for the flags of commands."""

from typing import Literal

Lowering = Literal[
    "native",
    "pointwise",
    "chunked",
    "depthwise",
    "patches",
    "patches_all",
    "crossed",
    "winograd_gradient",
    "winograd_all",
]
"""A form of a convolution, by its function in ``ops.conv_forms`` or ``ops.conv_gradients``."""

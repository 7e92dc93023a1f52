"""Weights in and out: names and layouts of PyTorch models, files, the hub, other runtimes."""

from senet_jax.interchange.described import network_of as network_of
from senet_jax.interchange.export import export_network as export_network
from senet_jax.interchange.export import load_stablehlo as load_stablehlo
from senet_jax.interchange.files import load_arrays as load_arrays
from senet_jax.interchange.files import save_arrays as save_arrays
from senet_jax.interchange.torch import MisfitError as MisfitError
from senet_jax.interchange.torch import from_torch as from_torch
from senet_jax.interchange.torch import to_torch as to_torch
from senet_jax.interchange.weights import load_weights as load_weights
from senet_jax.interchange.weights import save_weights as save_weights

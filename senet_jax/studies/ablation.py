"""The cells of the ablations in section 6 of the SENet paper (arXiv 1709.01507)."""

from collections.abc import Mapping

from senet_jax.attention import SqueezeExciteConfig
from senet_jax.config import TrainConfig
from senet_jax.models import zoo
from senet_jax.studies.grid import with_attention, without_attention


def ablation(base: TrainConfig, variants: Mapping[str, TrainConfig]) -> dict[str, TrainConfig]:
    """The cells of an ablation: "plain", which is the base without attention, and its variants.

    On ImageNet the SE layers have no biases, as in the paper's Tables 10 to 16. The variants stay
    as they are on other data sets, for which the paper has no ablations, and if the network has
    another attention.

    Args:
        base: The config whose network is varied.
        variants: Configs by name that differ from the base in the attention or its place.

    Raises:
        UsageError: The base names no network of the zoo.
    """
    own = zoo.find(base.model.name).fields["attention"]
    if base.data.name == "imagenet2012" and isinstance(own, SqueezeExciteConfig):
        variants = {name: with_attention(each, bias=False) for name, each in variants.items()}
    return {"plain": without_attention(base), **variants}

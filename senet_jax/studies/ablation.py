"""What the ablations of section 6 of the SENet paper (arXiv 1709.01507) have in common."""

from senet_jax.attention import SqueezeExciteConfig
from senet_jax.config import TrainConfig
from senet_jax.models import zoo
from senet_jax.studies.grid import with_attention


def as_in_section_6(base: TrainConfig) -> TrainConfig:
    """A config whose SE layers have no biases on ImageNet, as in the paper's Tables 10 to 16.

    On other data sets, for which the paper has no ablations, and with another attention, it stays
    as it is.
    """
    own = getattr(zoo.create_model(base.model.name), "attention", None)
    if base.data.name != "imagenet2012" or not isinstance(own, SqueezeExciteConfig):
        return base
    return with_attention(base, bias=False)

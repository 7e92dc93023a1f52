import functools
import re

import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import flatten_dict

from senet_jax import SqueezeExciteConfig, UsageError, create_model, list_models
from senet_jax.models.zoo import find


@pytest.mark.parametrize("name", list_models())
def test_a_network_is_what_its_name_says(name):
    size = find(name).input_size
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    init = functools.partial(create_model(name, num_classes=7).init_with_output, train=False)
    logits, variables = jax.eval_shape(init, jax.random.key(0), images)
    assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)
    assert variables.keys() == {"params", "batch_stats"}

    kernels = [path for path in flatten_dict(variables["params"]) if path[-1] == "kernel"]
    assert any("se" in path for path in kernels) == ("seresnet" in name)
    layers = [path for path in kernels if "se" not in path and "shortcut" not in path]
    assert len(layers) == int(re.search(r"\d+", name).group())


def test_list_models_takes_a_shell_pattern():
    assert list_models("cifar_resnet*") == [
        f"cifar_resnet{depth}" for depth in (8, 20, 32, 44, 56, 110)
    ]
    assert list_models("seresnet?01") == ["seresnet101"]
    assert list_models("resnet50") == ["resnet50"]
    assert list_models("vit*") == []
    assert list_models("*se*") == [name for name in list_models() if "se" in name]
    assert len(set(list_models())) == len(list_models())


def test_fields_override_those_of_the_name():
    se = SqueezeExciteConfig(gate="tanh")
    model = create_model("resnet50", num_classes=10, attention=se, placement="pre", stages=(3, 4))
    assert (model.num_classes, model.attention, model.placement) == (10, se, "pre")
    assert (model.stages, model.blocks) == ((3, 4), (3, 4, 6, 3))
    assert create_model("seresnet50", attention=None) == create_model("resnet50")


def test_models_are_values():
    assert create_model("seresnet18") == create_model("seresnet18")
    assert hash(create_model("seresnet18")) == hash(create_model("seresnet18"))
    assert create_model("seresnet18") != create_model("legacy_seresnet18")


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("serenset50", {}, "unknown model 'serenset50': did you mean seresnet50"),
        ("cifar_resnet2", {}, "unknown model 'cifar_resnet2': did you mean cifar_resnet"),
        ("resnet50", {"num_class": 10}, "field of resnet50 'num_class': did you mean num_classes"),
        ("resnet50", {"parent": None}, "unknown field of resnet50 'parent'"),
        ("resnet50", {"placement": "past"}, "unknown placement 'past': did you mean post"),
        ("resnet50", {"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ("resnet50", {"attention": "se"}, "attention must be a description.*, not a str"),
        ("resnet50", {"attention": SqueezeExciteConfig().build()}, "not a SqueezeExcite"),
    ],
)
def test_what_does_not_exist_is_refused_when_the_model_is_made(name, fields, message):
    with pytest.raises(UsageError, match=message):
        create_model(name, **fields)

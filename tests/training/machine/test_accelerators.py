import pytest

from senet_jax.errors import UsageError
from senet_jax.training.machine.accelerators import (
    ACCELERATORS,
    accelerator,
    name_of_kind,
    peak_flops,
)


@pytest.mark.parametrize(
    ("kind", "bfloat16", "float32"),
    [
        ("NVIDIA A100-SXM4-40GB", 312e12, 156e12),
        ("NVIDIA A100 80GB PCIe", 312e12, 156e12),
        ("NVIDIA H100 80GB HBM3", 989.4e12, 494.7e12),
        ("TPU v5 lite", 197e12, 197e12),
        ("TPU v5p", 459e12, 459e12),
    ],
)
def test_the_peak_of_a_device_is_found_by_its_name(kind, bfloat16, float32):
    assert (peak_flops(kind, "bfloat16"), peak_flops(kind, "float32")) == (bfloat16, float32)


@pytest.mark.parametrize(
    "kind", ["cpu", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA H100 NVL", "TPU v4 lite"]
)
def test_no_number_is_made_up_for_another(kind):
    assert peak_flops(kind, "bfloat16") is None


def test_an_accelerator_has_a_name_for_jax_and_one_for_people():
    assert name_of_kind("TPU v5 lite") == "v5e"
    assert name_of_kind("TPU v5") == "v5p"
    assert name_of_kind("NVIDIA H100 PCIe") == "h100-pcie"
    assert accelerator("h100").peak("bfloat16") == 2 * accelerator("h100").peak("float32")


@pytest.mark.parametrize("name", ["v5e", "v6e"])
def test_links_have_the_published_all_reduce_bandwidth_of_a_pod(name):
    each = ACCELERATORS[name]
    # 51.2 TB/s for 256 chips of v5e, 102.4 TB/s for those of v6e.
    assert each.node * each.link == {"v5e": 51.2e12, "v6e": 102.4e12}[name]


def test_near_names_are_given_for_an_unknown_one():
    with pytest.raises(UsageError, match=r"unknown accelerator 'h10': did you mean .*h100"):
        accelerator("h10")

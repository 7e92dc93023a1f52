import pytest

from senet_jax.models.resnet import ResNet
from senet_jax.training.distributed import mesh as meshes
from senet_jax.training.machine.flops import Utilization


def utilization(monkeypatch, kind, devices):
    if kind is not None:
        monkeypatch.setattr("senet_jax.training.machine.flops.peak_flops", lambda k, d: kind)
    model = ResNet(blocks=(1,), widths=(4,), stem="cifar", stem_width=4, bottleneck=False)
    return Utilization(model, "float32", meshes.make_mesh(devices))


def test_it_is_six_operations_a_mac_over_the_peak_of_all_devices(monkeypatch):
    # Three 3x3 convolutions at 8x8, of 3 -> 4, 4 -> 4 and 4 -> 4 channels, and the classifier.
    macs = 64 * 9 * (3 * 4 + 2 * 4 * 4) + 4 * 1000
    share = utilization(monkeypatch, 1e9, 2).of((8, 8, 3), 500.0)
    assert share == pytest.approx(6 * macs * 500 / 2e9)
    # Convolutions of twice the side cost four times as much.
    larger = utilization(monkeypatch, 1e9, 2).of((16, 16, 3), 500.0)
    assert larger == pytest.approx(6 * (4 * (macs - 4000) + 4000) * 500 / 2e9)


def test_a_cpu_has_none(monkeypatch):
    assert utilization(monkeypatch, None, 1).of((8, 8, 3), 500.0) is None

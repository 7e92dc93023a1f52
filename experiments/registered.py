"""A registered study: does SE help a small ResNet on a part of CIFAR-10?

    python -m experiments.registered gain --data cifar10 --data-dir DIR --seeds 5 FLAGS
    python -m experiments.registered variants --data cifar10 --data-dir DIR --seeds 3 FLAGS
    python -m experiments.registered gain                # digits, minutes: not the study

with FLAGS ``--epochs 28 --fraction 0.08 --batch-size 32``. The plan below was committed before the
first run. ``gain`` is the first tier, ``variants`` the second; they share a folder, so that
``variants`` does not train the cells of ``gain`` again. The third tier, if there is time, is
``gain`` with --fraction 1 and another folder.

Cells: ``plain`` is the ResNet-8 of CIFAR (arXiv 1512.03385, section 4.2, with one block in each of
three stages), twice as wide: 32, 64 and 128 channels. ``se`` is that network with SE (arXiv
1709.01507, section 3: mean, sigmoid, before the addition) and r = 4 in every block, which leaves 8,
16 and 32 hidden units. The variants are SE with the maximum, ReLU and tanh, then with r = 8 and 16.

Training: SGD with Nesterov's momentum 0.9, the rate 0.05, which rises for one epoch and then
falls to zero along a half cosine; weight decay 1e-4 of the kernels; flips, and no crops, because
the training error shall come near zero. The images are 4,000 of the 50,000, the same in all runs.
A pilot without SE chose this with seed 100, which is not used again: after 20 epochs of 5,000
images in batches of 64 the training error was 12 % and the test error 34.9 %; batches of 32
learned a little faster in the first five epochs.

Measure: the top-1 error on the 10,000 test images after the last epoch. No run is chosen by it. The
seeds are 0 to 4 (0 to 2 of the variants); no run is repeated or left out, and a run that fails is
named.

Test: the difference of ``se`` to ``plain``, paired by seed, with its 95 % interval of Student's t.
The study agrees with SENet (Table 4: ResNet-110 6.37 %, with SE 5.21 %) if the interval lies below
zero, and disagrees if it lies above. Otherwise it leaves the question open, and the half width of
the interval is the least difference that it could have found. The variants are compared with
``plain`` likewise and are secondary. The report adds p of the two-sided paired t-test, corrected
for the number of cells in the folder (Holm). The training error of the last epoch is reported
beside the test error.
"""

import dataclasses
import sys

from senet_jax.command_line.study import Study, main_of
from senet_jax.config import TrainConfig
from senet_jax.studies.grid import with_attention, with_model, without_attention

VARIANTS: dict[str, dict[str, object]] = {
    "max": {"squeeze": "max"},
    "relu": {"gate": "relu"},
    "tanh": {"gate": "tanh"},
    "r8": {"reduction": 8.0},
    "r16": {"reduction": 16.0},
}
"""The fields in which the second tier differs from ``se``, in the order of its runs."""


def gain(base: TrainConfig) -> dict[str, TrainConfig]:
    """SE and no SE."""
    augment = dataclasses.replace(base.data.augment, pad=0)
    optimizer = dataclasses.replace(
        base.optimizer,
        learning_rate=0.05,
        base_batch=None,
        schedule="cosine",
        milestones=(),
        warmup_epochs=1.0,
    )
    base = dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, augment=augment),
        optimizer=optimizer,
        # Validation of 10,000 images takes as long as an epoch of 4,000.
        eval_every_epochs=max(1, base.epochs // 2),
    )
    base = with_model(base, name="cifar_seresnet8", widths=(32, 64, 128))
    return {"plain": without_attention(base), "se": with_attention(base, reduction=4.0)}


def variants(base: TrainConfig) -> dict[str, TrainConfig]:
    """The cells of ``gain``, and SE with other squeezes, gates and ratios."""
    cells = gain(base)
    return cells | {name: with_attention(cells["se"], **own) for name, own in VARIANTS.items()}


STUDIES = {
    cells.__name__: Study("registered", __doc__, cells, "plain", own_networks=True)
    for cells in (gain, variants)
}

if __name__ == "__main__":
    sys.exit(main_of("registered", __doc__, STUDIES))

import json

import numpy as np
import pytest
from PIL import Image

from senet_jax.analysis import plots
from senet_jax.analysis.plots import draw_curves
from senet_jax.tasks.classification import Classification
from senet_jax.tasks.detection import Detection


def write(run_dir, lines):
    run_dir.mkdir()
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run_dir


def line(epoch, loss, validated=True):
    values = {"step": 10 * epoch, "epoch": epoch, "train/loss": loss, "train/top1": 1 - loss / 3}
    if validated:
        values |= {"val/loss": loss, "val/top1": 1 - loss / 3, "val/count": 10}
    return values


def ink(file):
    """The number of pixels of the validation curve's blue."""
    pixels = np.asarray(Image.open(file).convert("RGB")).astype(int)
    return int(((pixels - [11, 83, 148]) ** 2).sum(-1).__lt__(500).sum())


def test_the_validation_curve_is_drawn_where_it_was_measured(tmp_path):
    losses = [2.0, 1.0, 0.5, 0.2, 0.1]
    full = write(tmp_path / "full", [line(e, loss) for e, loss in enumerate(losses, 1)])
    half = write(
        tmp_path / "half",
        [line(e, loss, validated=e >= 4) for e, loss in enumerate(losses, 1)],
    )
    drawn = [ink(draw_curves(run, "a", Classification)) for run in (full, half)]
    assert drawn[0] > 1.5 * drawn[1] > 0


def test_one_epoch_is_drawn_as_a_point(tmp_path):
    file = draw_curves(write(tmp_path / "one", [line(1, 2.0)]), "a", Classification)
    assert file == tmp_path / "one" / "curves.png"
    assert ink(file) > 20


def test_the_loss_is_drawn_where_training_measures_nothing_else(tmp_path, monkeypatch):
    rows = [
        {"step": 1, "epoch": 1.0, "train/loss": 3.0},
        {"step": 2, "epoch": 2.0, "train/loss": 2.0, "val/AP": 0.8, "val/AP50": 0.9},
    ]
    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, file: figures.append(figure))
    draw_curves(write(tmp_path / "run", rows), "a", Detection)
    loss, ap = figures[0].axes
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["training"]
    assert [text.get_text() for text in ap.get_legend().get_texts()] == ["validation"]
    assert loss.lines[0].get_ydata().tolist() == [3.0, 2.0]
    assert ap.get_ylim() == pytest.approx((0, 86.4))

"""The benchmark of RoIAlign really runs, small."""

from experiments.benchmarks import roi_align


def test_both_forms_are_measured():
    settings = roi_align.RoIAlignForms(
        images=1, side=32, rois=8, bins=2, channels=4, pairs=2, sample_s=0
    )
    rows = {row["form"]: row for row in roi_align.measure(settings)}
    assert set(rows) == {"dense", "gather"}
    assert rows["gather"]["suits"] == "yes"
    assert rows["gather"]["time / suits"].median == 1
    assert all(row["temporaries / result"] > 0 for row in rows.values())

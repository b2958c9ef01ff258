import pytest
from PIL import Image

from drrepro.experiments import plan
from drrepro.report.figures import draw_figures, score_densities
from tests.report.test_tables import fake, robust


def test_figures_are_drawn_from_what_is_there(tmp_path):
    runs = tmp_path / "runs"
    fake(runs, plan.thresholds([]), robust)
    fake(runs, plan.scales([]), robust)
    plan.save_plan(plan.datasets([])[0], runs)  # planned, never run
    paths = draw_figures(plan.load_plans(runs), runs, tmp_path / "results")
    names = {path.relative_to(tmp_path / "results").as_posix() for path in paths}
    assert names == {f"digits/{name}.png" for name in ("figure1", "ap_threshold", "training", "ap_scale")}
    for path in paths:
        with Image.open(path) as image:
            assert image.width > 400


def test_figure_1_shows_densities_and_the_background_divided_by_ten():
    record = {"densities": {"foreground": [0] * 150 + [4] * 50, "background": [8] * 50 + [0] * 150}}
    figure = score_densities({"dr": record})
    top, bottom = figure.axes
    assert [text.get_text() for text in bottom.get_legend().get_texts()] == ["background / 10", "foreground"]
    background, tenth = top.lines[0].get_ydata(), bottom.lines[0].get_ydata()
    assert background.mean() == pytest.approx(1)  # a density over 0..1 integrates to one
    assert abs(tenth * 10 - background).max() < 1e-12

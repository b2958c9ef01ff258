"""Every shipped configuration composes, validates and builds."""

from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from drrepro.composing import expand
from drrepro.config import compose, config_folder, for_evaluation, from_dict, run_id, scaling_note, to_dict
from drrepro.errors import UsageError
from drrepro.losses import DRLoss, FocalLoss
from drrepro.losses.named import LOSSES, build_loss
from drrepro.models.retinanet import RetinaNet
from drrepro.schema import Config
from drrepro.training.schedule import build_optimizer

FILES = sorted(
    path.relative_to(config_folder()) for path in config_folder().glob("*/*.yaml") if path.parent.name != "study"
)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_option_composes_builds_and_explains_itself(path):
    config = compose([f"{path.parent}={path.stem}"])
    with torch.device("meta"):
        model = RetinaNet(config.model, 3)
    build_optimizer(model, config.schedule)
    build_loss(config.loss)
    text = (config_folder() / path).read_text()
    assert any(line.startswith("# ") and "@package" not in line for line in text.splitlines())
    yaml.safe_load(text)


def test_defaults_are_the_papers_protocol():
    config = Config()
    dr, focal = DRLoss.Parameters(), FocalLoss.Parameters()
    assert (dr.pos_lambda, dr.h, dr.L, dr.margin, dr.tau) == (1, 3.5, 6, 0.5, 4)
    assert (focal.gamma, focal.alpha, focal.box_beta, focal.box_normalizer) == (2, 0.25, 0.11, 4)
    assert (config.schedule.steps, config.schedule.milestones, config.schedule.lr) == (90_000, [60_000, 80_000], 0.01)
    assert (config.evaluation.candidates_per_level, config.evaluation.detections_per_image) == (1000, 100)
    assert config.input.mean == [102.9801, 115.9465, 122.7717]
    voc = compose(["schedule=voc2007", "input=paper", "model=retinanet_r50_caffe"])
    assert (voc.schedule.lr, voc.schedule.milestones, voc.schedule.steps, voc.schedule.images_per_step) == (
        0.008,
        [6250],
        8750,
        8,
    )
    assert voc.model == Config().model
    assert voc.input == Config().input


def test_a_loss_brings_its_prior_matcher_and_thresholds_and_each_can_be_set_alone():
    focal = compose(["loss=focal"])
    assert (focal.model.prior, focal.matcher.bg_iou) == (0.01, 0.4)
    assert (focal.evaluation.score_threshold, focal.evaluation.nms_iou) == (0.05, 0.4)
    mixed = compose(["loss=dr", "model.prior=0.01", "matcher.bg_iou=0.4"])
    assert (mixed.loss.name, mixed.model.prior, mixed.matcher.bg_iou, mixed.evaluation.nms_iou) == (
        "dr",
        0.01,
        0.4,
        0.5,
    )


def test_loss_only_changes_the_loss_alone_and_what_is_given_still_wins():
    def without_loss(config):
        return {key: value for key, value in to_dict(config).items() if key not in ("loss", "loss_only")}

    focal, dr = compose(["loss=focal", "loss_only=true"]), compose(["loss=dr", "loss_only=true"])
    assert (focal.loss.name, dr.loss.name) == ("focal", "dr")
    assert without_loss(focal) == without_loss(dr)
    assert run_id(focal) == run_id(compose(["loss=focal"]))
    assert compose(["loss_only=true", "loss.tau=2"]).loss.tau == 2
    assert compose(["loss_only=true", "model.prior=0.3"]).model.prior == 0.3


def test_other_images_per_step_scale_rate_and_iterations_and_say_so():
    recipe = ["schedule=coco_1x"]
    half = compose([*recipe, "schedule.images_per_step=8"]).schedule
    assert (half.lr, half.steps, half.milestones) == (0.005, 180_000, [120_000, 160_000])
    assert half.warmup_steps == 500
    assert scaling_note(half) == (
        "8 images a step, not the recipe's 16: lr 0.005, 180000 steps, milestones [120000, 160000]"
    )
    given = compose([*recipe, "schedule.images_per_step=8", "schedule.lr=0.02", "schedule.steps=7"]).schedule
    assert (given.lr, given.steps, given.milestones) == (0.02, 7, [120_000, 160_000])
    assert scaling_note(compose(recipe).schedule) is None
    assert compose(["schedule.images_per_step=2"]).schedule.steps == 1500  # no rule scales AdamW's rate


def test_run_ids_follow_the_configuration_and_nothing_else(tmp_path, monkeypatch):
    base = run_id(compose([]))
    assert base.startswith("digits-dr-128-s0-")
    assert run_id(compose(["runtime.workers=3"])) == base
    assert run_id(compose(["schedule.lr=0.02"])) != base
    assert run_id(compose(["seed=1", "input.scale=64", "loss=focal"])).startswith("digits-focal-64-s1-")
    monkeypatch.chdir(tmp_path)
    relative = compose(["data=voc_custom", "data.root=x"])
    assert relative.data.root == str(tmp_path / "x")
    assert from_dict(to_dict(relative), tmp_path) == relative


def test_weights_bring_their_normalisation_whatever_the_input():
    for data in ("coco_custom", "digits"):
        caffe, rgb = (compose([f"data={data}", f"model=retinanet_r50{kind}"]) for kind in ("_caffe", ""))
        assert (caffe.input.bgr, caffe.input.mean, caffe.input.std) == (True, Config().input.mean, [1, 1, 1])
        assert (rgb.input.bgr, rgb.input.std, rgb.weights) == (False, [58.395, 57.12, 57.375], "imagenet")
        assert caffe.input.scale == rgb.input.scale == compose([f"data={data}"]).input.scale


def test_a_file_of_weights_shapes_the_id_by_its_content_and_not_its_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in (("a.pth", b"1"), ("b.pth", b"1"), ("c.pth", b"2")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (compose([f"weights={name}.pth"]) for name in "abc")
    assert a.weights == str(tmp_path / "a.pth")
    assert run_id(a) == run_id(b) != run_id(c)
    (tmp_path / "a.pth").write_bytes(b"2")
    assert run_id(compose(["weights=a.pth"])) == run_id(c)
    assert run_id(compose(["weights=imagenet"])) != run_id(compose([]))
    evaluated = for_evaluation(a, ["weights=run:x"])
    assert (evaluated.weights, evaluated.weights_sha256) == ("run:x", None)
    with pytest.raises(UsageError, match="weights=run:a/b: must be none, imagenet"):
        compose(["weights=run:a/b"])


def test_a_folder_of_ones_own_options(tmp_path):
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "mine.yaml").write_text("name: dr\nmargin: 0.7\n")
    assert compose(["loss=mine"], tmp_path).loss.margin == 0.7


def test_what_is_not_a_key_is_refused():
    for override in ("+foo=1", "+loss.foo=1", "loss.hh=3", "schedule.steps", "data.root=${nope}"):
        with pytest.raises(UsageError) as caught:
            compose([override])
        assert "\n" not in str(caught.value)


def test_expand_takes_lists_and_ranges():
    assert expand(["seed=range(0,3)", "loss=dr"]) == [
        ["seed=0", "loss=dr"],
        ["seed=1", "loss=dr"],
        ["seed=2", "loss=dr"],
    ]
    with pytest.raises(UsageError, match="seed"):
        expand(["seed=[0"])


def test_evaluation_keeps_what_the_weights_settle():
    trained = compose(["loss=focal", "input.scale=64"])
    config = for_evaluation(trained, ["weights=run:x", "data=letters", "evaluation.score_thresholds=[0.1,0.3]"])
    assert (config.data.name, config.loss.name, config.input.scale) == ("letters", "focal", 64)
    assert config.evaluation.score_thresholds == [0.1, 0.3]
    assert config.weights == "run:x"
    with pytest.raises(UsageError, match=r"schedule\.lr=0\.1: settled by the trained weights"):
        for_evaluation(trained, ["weights=run:x", "schedule.lr=0.1"])


def test_a_configuration_of_another_version_is_named():
    with pytest.raises(UsageError, match=r"old: written by another version of drrepro"):
        from_dict({"optimizer": "adam"}, Path("old"))


def test_tuned_rates_are_the_best_of_the_published_grid():
    grid = pd.read_csv(Path(__file__).parents[1] / "results" / "digits" / "tuning.csv")
    best = grid.loc[grid.groupby("loss")["AP"].idxmax()].set_index("loss")["schedule.lr"].to_dict()
    tuned = yaml.safe_load((config_folder() / "schedule" / "cpu.yaml").read_text())["tuned_lr"]
    assert tuned == best == {name: compose([f"loss={name}"]).schedule.lr for name in LOSSES}
    assert grid.groupby("loss")["schedule.lr"].nunique().nunique() == 1  # as many for each

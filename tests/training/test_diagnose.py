"""A number that is not finite is traced to where it begins."""

import pytest
import torch

from drrepro.config import compose, run_id
from drrepro.errors import RunError
from drrepro.experiments.run import run
from drrepro.models.retinanet import RetinaNet
from drrepro.progress import silent
from drrepro.training.diagnose import first_not_finite
from tests.conftest import TINY

IMAGES = torch.zeros(1, 3, 64, 64)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return RetinaNet(compose([]).model, 3)


def test_a_sound_model_has_none(model):
    logits, deltas = model(IMAGES)
    (logits.sum() + deltas.sum()).backward()
    assert first_not_finite(model, IMAGES, None) is None


def test_a_weight_comes_before_what_follows_from_it(model):
    model.fpn.layer_blocks[0][0].weight.data[0, 0, 0, 0] = float("nan")
    assert first_not_finite(model, IMAGES, None) == "the parameter fpn.layer_blocks.0.0.weight"


def test_the_first_output_that_overflows_is_named(model):
    model.classifier.tower[0].bias.data[:] = 3e38
    model.classifier.tower[2].weight.data[:] = 3e38
    assert first_not_finite(model, IMAGES, None) == "the output of classifier.tower.2"


@pytest.mark.parametrize("clip_norm", ["10", "null"])
def test_a_gradient_alone_is_named_by_the_run_and_the_weights_are_not_blamed(
    clip_norm, data_folder, tmp_path, monkeypatch
):
    init = RetinaNet.__init__

    def broken(self, *arguments):
        init(self, *arguments)
        self.fpn.extra_blocks.p7.weight.register_hook(lambda gradient: gradient * float("inf"))

    monkeypatch.setattr(RetinaNet, "__init__", broken)
    config = compose([*TINY, f"schedule.clip_norm={clip_norm}"])
    with pytest.raises(RunError) as caught:
        run(config, tmp_path, data_folder, silent)
    text = str(caught.value)
    assert str(tmp_path / run_id(config)) in text
    assert "step 0: the gradient is not finite (loss " in text
    assert "first the gradient of fpn.extra_blocks.p7.weight; lower schedule.lr or set schedule.prec" in text

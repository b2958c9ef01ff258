import pytest

from drrepro.models.retinanet import RetinaNet
from drrepro.schema import ModelConfig, ScheduleConfig
from drrepro.training.schedule import build_optimizer, learning_rate, set_learning_rate


def test_the_papers_schedule():
    config = ScheduleConfig()
    assert learning_rate(0, config) == pytest.approx(0.01 / 3)
    assert learning_rate(250, config) == pytest.approx(0.01 * (1 / 3 + 2 / 3 / 2))
    assert learning_rate(500, config) == learning_rate(59_999, config) == 0.01
    assert learning_rate(60_000, config) == pytest.approx(1e-3)
    assert learning_rate(80_000, config) == pytest.approx(1e-4)


def test_cosine_ends_near_zero():
    config = ScheduleConfig(steps=100, decay="cosine", warmup_steps=10, warmup_factor=0.0)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[0] == 0
    assert max(rates) < 0.01
    assert rates[-1] < 1e-5
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_biases_have_their_own_rate_and_no_decay(optimizer):
    model = RetinaNet(ModelConfig(backbone="resnet18", fpn_channels=16, head_convs=1), 2)
    built = build_optimizer(model, ScheduleConfig(optimizer=optimizer))
    set_learning_rate(built, 0.01)
    weights, biases = built.param_groups
    assert (weights["lr"], weights["weight_decay"]) == (0.01, 1e-4)
    assert (biases["lr"], biases["weight_decay"]) == (0.02, 0.0)
    names = {id(p): n for n, p in model.named_parameters()}
    assert all(names[id(p)].endswith("bias") for p in biases["params"])
    trained = {names[id(p)] for group in built.param_groups for p in group["params"]}
    assert not any(name.startswith(("backbone.conv1", "backbone.layer1")) for name in trained)
    assert any(name.startswith("backbone.layer2") for name in trained)

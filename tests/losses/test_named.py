"""A loss is data: its parameters are the keys of loss., its class is found by name or by _target_."""

import json
from dataclasses import asdict, fields

import pytest
import torch
import yaml
from typer.testing import CliRunner

from drrepro.cli import app
from drrepro.config import compose, config_folder, from_dict, run_id, to_dict
from drrepro.errors import UsageError
from drrepro.losses import DRLoss, FocalLoss
from drrepro.losses.contract import Normalizer
from drrepro.losses.named import LOSSES, build_loss
from drrepro.schema import LossConfig
from tests.conftest import TINY

MINE = '''
from dataclasses import dataclass

from drrepro.losses import ClassificationLoss
from drrepro.schema import LossConfig


@dataclass
class Parameters(LossConfig):
    power: float = 1.0


class Margin(ClassificationLoss):
    """The mean of (p - y)^2, to a power."""

    Parameters = Parameters

    def __init__(self, power: float = 1.0) -> None:
        super().__init__()
        if not power > 0:
            raise ValueError(f"power must be positive, got {power}")
        self.power = power

    def forward(self, logits, labels):
        y = labels[..., None] == torch.arange(1, logits.shape[2] + 1)
        return ((logits.float().sigmoid() - y.float()).square() ** self.power * (labels >= 0)[..., None]).mean() * 100
'''


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder of options with a loss of one's own: a file and a yaml."""
    folder = tmp_path / "mine"
    (folder / "loss").mkdir(parents=True)
    (folder / "own_loss.py").write_text(f"import torch\n{MINE}")
    (folder / "loss" / "margin.yaml").write_text("name: margin\n_target_: own_loss.Margin\npower: 1.5\n")
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    monkeypatch.delitem(__import__("sys").modules, "own_loss", raising=False)
    monkeypatch.setenv("PYTHONPATH", "")
    return folder


@pytest.mark.parametrize("name", LOSSES)
def test_the_yaml_has_the_parameters_of_the_class_and_no_others(name):
    written = yaml.safe_load((config_folder() / "loss" / f"{name}.yaml").read_text())["loss"]
    common = {item.name for item in fields(LossConfig)}
    defaults = {key: value for key, value in asdict(LOSSES[name].Parameters()).items() if key not in common}
    assert written == {"name": name, **defaults}
    config = compose([f"loss={name}"])
    assert set(to_dict(config)["loss"]) == {*common, *defaults}
    assert type(build_loss(config.loss)) is LOSSES[name]


def test_parameters_of_another_loss_are_no_keys():
    with pytest.raises(UsageError, match=r"loss\.gamma: no such key"):
        compose(["loss=dr", "loss.gamma=1"])
    with pytest.raises(UsageError, match=r"loss\.gamma: no parameter of loss=dr; it takes .*pos_lambda, h, L"):
        compose(["loss=dr", "+loss.gamma=1"])
    with pytest.raises(UsageError, match=r"loss\.h=1\.0: must exceed 1 and be at most 500"):
        compose(["loss.h=1"])
    with pytest.raises(UsageError, match=r"loss\.scope=global: must be image or batch"):
        compose(["loss.scope=global"])
    with pytest.raises(UsageError, match=r"loss\.gamma=-1\.0: must be non-negative"):
        compose(["loss=focal", "loss.gamma=-1"])
    with pytest.raises(UsageError, match=r"loss\.h"):
        compose(["loss.h=high"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loss.name=fokal", "loss.name=fokal: must be one of dr, focal, balanced_ce"),
        ("loss._target_=nowhere.Loss", "loss._target_=nowhere.Loss: No module named 'nowhere'; its file must lie in"),
        ("loss._target_=drrepro.losses.Loss", "has no attribute 'Loss'"),
        ("loss._target_=drrepro.schema.Config", "is no subclass of drrepro.losses.ClassificationLoss"),
        ("loss._target_=Loss", "loss._target_=Loss: "),
    ],
)
def test_an_unknown_loss_is_named_with_those_that_are_known(override, message):
    with pytest.raises(UsageError) as raised:
        compose([override])
    assert message in str(raised.value)


def test_shares_add_up_to_the_loss_of_the_step():
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 30, 3), torch.randint(-1, 4, (4, 30))
    normalizer = Normalizer((labels > 0).sum(), torch.tensor(4), 1)
    for loss in (DRLoss(), FocalLoss()):
        shares = [loss.share(logits[i : i + 2], labels[i : i + 2], normalizer, 2) for i in (0, 2)]
        torch.testing.assert_close(sum(shares), loss(logits, labels))


def test_a_loss_of_ones_own_is_trained_swept_and_in_the_tables(mine, environment):
    own = ["--config-dir", str(mine), *TINY]
    config = compose(["loss=margin", *TINY], mine)
    assert (config.loss.name, config.loss.power, config.schedule.lr) == ("margin", 1.5, 0.002)
    assert run_id(config).startswith("digits-margin-64-s0-")
    assert run_id(config) != run_id(compose(["loss=margin", "loss.power=2", *TINY], mine))
    assert from_dict(to_dict(config), mine) == config
    with pytest.raises(UsageError, match=r"loss\.power=-1\.0: must be positive"):
        compose(["loss=margin", "loss.power=-1"], mine)
    done = CliRunner().invoke(app, ["train", "--json", "--quiet", "loss=margin", *own], catch_exceptions=False)
    assert json.loads(done.stdout)["config"]["loss"]["power"] == 1.5
    grid = ["sweep", "grid", "--quiet", "loss=margin,dr", *own]  # in processes of their own
    swept = CliRunner().invoke(app, grid, catch_exceptions=False)
    assert swept.exit_code == 0, swept.output
    assert "margin" in swept.stdout
    alone = compose(["loss=margin", "loss_only=true", *TINY], mine)
    focal = compose(["loss=focal", *TINY])
    assert (alone.loss.name, alone.model.prior, alone.matcher) == ("margin", focal.model.prior, focal.matcher)

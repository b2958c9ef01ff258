"""What a step hands to the loss."""

from dataclasses import dataclass

import torch
from torchvision.ops import box_iou

from drrepro.config import compose
from drrepro.losses import ClassificationLoss
from drrepro.models.anchors import decode, match
from drrepro.models.retinanet import RetinaNet
from drrepro.schema import LossConfig
from drrepro.training.step import add_gradients, with_targets
from tests.test_distributed import batch_of


@dataclass
class Parameters(LossConfig):
    """None."""


class Quality(ClassificationLoss):
    """Keeps the IoUs that it is given."""

    Parameters = Parameters
    needs_ious = True

    def forward(self, logits, labels, ious):
        self.ious, self.labels = ious, labels
        return (logits.float().sigmoid() - ious[..., None]).square().mean()


def test_a_loss_that_asks_for_it_gets_the_iou_of_each_predicted_box():
    torch.manual_seed(0)
    config = compose(["model=resnet18", "model.norm=frozen", "model.fpn_channels=16", "schedule.precision=fp32"])
    model, loss, batch = RetinaNet(config.model, 3), Quality(), batch_of([0, 1])
    with torch.no_grad():
        _, deltas = model(batch.images)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    add_gradients(model, loss, scaler, [with_targets(batch, model, config)], config)
    anchors = torch.cat(model.anchors_of(batch.images))
    labels, boxes = match(anchors, batch.boxes, batch.labels, config.matcher)
    predicted = decode(deltas, anchors, config.model.box_weights, config.model.box_growth)
    expected = torch.stack([box_iou(p, b).diagonal() for p, b in zip(predicted, boxes, strict=True)])
    positive = labels > 0
    assert positive.sum() > 10
    torch.testing.assert_close(loss.ious[positive], expected[positive])
    assert (loss.ious[~positive] == 0).all()
    assert not loss.ious.requires_grad
    assert torch.equal(loss.labels, labels)

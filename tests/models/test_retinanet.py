"""The detector against torchvision's: the same state gives the same detections, and one step the same gradients."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models.detection import retinanet_resnet50_fpn
from torchvision.models.resnet import Bottleneck

from drrepro.data.dataset import Sample
from drrepro.data.loader import Item, collate
from drrepro.losses import FocalLoss
from drrepro.losses.contract import Normalizer
from drrepro.models.anchors import match
from drrepro.models.checkpoints import from_torchvision, load_weights
from drrepro.models.postprocess import above, select_candidates, suppress
from drrepro.models.retinanet import RetinaNet
from drrepro.schema import Config, InputConfig, MatcherConfig, ModelConfig
from drrepro.training.box_loss import box_loss

CLASSES = 5
CONFIG = Config(
    model=ModelConfig(
        norm="batch",
        norm_eps=1e-5,
        stride_in_1x1=False,
        frozen_stages=0,
        convention="torchvision",
        box_weights=[1.0] * 4,
    ),
    input=InputConfig(bgr=False, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    matcher=MatcherConfig(fg_iou=0.5, bg_iou=0.4),
    loss=FocalLoss.Parameters(name="focal", box_beta=1.0, box_normalizer=1.0),
)
SIZES = [(150, 190), (150, 175)]  # padded to 160 x 192; P6 and P7 reach beyond


@pytest.fixture(scope="module")
def theirs():
    """torchvision's detector from random weights, with logits and deltas that make many different detections."""
    torch.manual_seed(0)
    model = retinanet_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES,
        min_size=150,
        max_size=190,
        score_thresh=0.55,
        detections_per_img=300,
    )
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the statistics of what it sees
        if isinstance(module, Bottleneck):
            torch.nn.init.constant_(module.bn3.weight, 0.1)  # at 1, fifty layers of noise magnify a rounding to 1e-4
    with torch.no_grad():
        images = batch_of([torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.int64)] * 2).images
        model.train().backbone(images)
        levels = list(model.eval().backbone(images).values())
        for final, values, spread in (
            (model.head.classification_head.cls_logits, model.head(levels)["cls_logits"], 1.0),
            (model.head.regression_head.bbox_reg, model.head(levels)["bbox_regression"], 0.3),
        ):
            final.weight.mul_(spread / values.std())
        model.head.classification_head.cls_logits.bias.fill_(-2)
    return model


@pytest.fixture
def ours(theirs, tmp_path):
    model = RetinaNet(CONFIG.model, CLASSES).to(memory_format=torch.channels_last)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    load_weights(
        model, replace(CONFIG, weights=str(tmp_path / "theirs.pth")), tmp_path / "theirs.pth", [*range(CLASSES)]
    )
    return model


def pixels():
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(256, (3, *size), generator=generator, dtype=torch.uint8) for size in SIZES]


def batch_of(boxes, labels):
    items = []
    for p, b, n in zip(pixels(), boxes, labels, strict=True):
        own = (b.double().numpy(), n.numpy(), np.zeros(len(n)), np.zeros(len(n), np.bool_))
        items.append(Item(Sample(0, Path(), p.shape[2], p.shape[1], *own), p, flip=False))
    return collate(items, CONFIG.input, torch.device("cpu"))


@torch.inference_mode()
def test_the_detector_equals_torchvisions(theirs, ours):
    expected = theirs.eval()([p / 255 for p in pixels()])
    none = [torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.int64)] * 2
    batch = batch_of(*none)
    (logits, deltas), anchors = ours.eval()(batch.images), ours.anchors_of(batch.images)
    for i, theirs_found in enumerate(expected):
        candidates = select_candidates(logits[i].sigmoid(), deltas[i], anchors, CONFIG.model, 1000)
        candidates = above(candidates, SIZES[i], CONFIG.model, 0.55)
        found = suppress(candidates, SIZES[i], 0.5, 300)
        assert len(theirs_found["boxes"]) == len(found.boxes)
        assert 50 < len(found.boxes) < 300  # many, and all of them
        assert len(candidates.scores) > len(found.boxes)  # something was suppressed
        torch.testing.assert_close(found.boxes, theirs_found["boxes"], atol=1e-3, rtol=0)
        torch.testing.assert_close(found.scores, theirs_found["scores"], atol=1e-5, rtol=0)
        assert torch.equal(found.labels - 1, theirs_found["labels"])


def test_one_step_reaches_the_same_parameters_with_the_same_gradients(theirs, ours):
    boxes = [torch.tensor([[10.0, 20, 70, 90], [60, 40, 180, 140]]), torch.tensor([[30.0, 5, 62, 40]])]
    labels = [torch.tensor([1, 3]), torch.tensor([4])]  # in 1..K; torchvision counts its outputs from 0
    # In float64: a ReLU that rounding turns on or off moves a gradient more than 1e-4.
    theirs, ours = copy.deepcopy(theirs).double(), ours.double().eval()
    theirs.train().backbone.eval()  # its statistics stay, as in the paper
    theirs.head.regression_head._loss_type = "smooth_l1"
    targets = [{"boxes": b, "labels": n - 1} for b, n in zip(boxes, labels, strict=True)]
    sum(theirs([p.double() / 255 for p in pixels()], targets).values()).backward()

    batch = batch_of(boxes, labels)
    images, _ = theirs.transform([p.double() / 255 for p in pixels()])
    logits, deltas = ours(images.tensors)
    anchors = torch.cat(ours.anchors_of(images.tensors))
    matched, targets = match(anchors, batch.boxes, batch.labels, CONFIG.matcher)
    total = torch.zeros(())
    for i in range(2):  # torchvision divides each image's sums by its own positives
        one = slice(i, i + 1)
        positives = (matched[i] > 0).sum()
        assert positives > 1
        focal = FocalLoss(CONFIG.loss.gamma, CONFIG.loss.alpha)(logits[one], matched[one], positives)
        weights = CONFIG.model.box_weights
        counted = Normalizer(positives[None], positives[None], 1)
        box = box_loss(deltas[one], anchors, matched[one], targets[one], CONFIG.loss, weights, counted)
        total = total + (focal + box) / 2
    total.backward()

    expected = from_torchvision({n: p.grad for n, p in theirs.named_parameters()}, [*range(CLASSES)])
    found = {n: p.grad for n, p in ours.named_parameters()}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient.norm() > 0, name
        assert (found[name] - gradient).norm() <= 1e-4 * gradient.norm(), name

import math

import pytest
import torch
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import _default_anchorgen
from torchvision.ops import box_iou

from drrepro.bench.losses import peak_bytes
from drrepro.models.anchors import CPU_PIECE, PIECE, AnchorGrid, cell_anchors, decode, encode, match, paired_iou
from drrepro.schema import MatcherConfig, ModelConfig


def test_first_anchors_are_those_of_maskrcnn_benchmark():
    inclusive = cell_anchors(ModelConfig(), 0)[:2] - torch.tensor([0.0, 0, 1, 1])
    expected = [[-18, -8, 25, 15], [-23.7183, -11.1191, 30.7183, 18.1191]]
    torch.testing.assert_close(inclusive, torch.tensor(expected), atol=1e-4, rtol=0)


def test_torchvision_convention_gives_torchvision_anchors():
    config = ModelConfig(convention="torchvision")
    shapes = [(20, 24), (10, 12), (5, 6), (3, 3), (2, 2)]
    ours = torch.cat(AnchorGrid(config).levels(160, 192, torch.device("cpu")))
    images = ImageList(torch.zeros(1, 3, 160, 192), [(150, 190)])
    theirs = _default_anchorgen()(images, [torch.zeros(1, 1, h, w) for h, w in shapes])[0]
    assert torch.equal(ours, theirs)


def test_anchors_are_cached_per_size():
    grid = AnchorGrid(ModelConfig())
    assert grid.levels(64, 96, torch.device("cpu")) is grid.levels(64, 96, torch.device("cpu"))


def crowded(images, boxes, height, width, seed=0):
    """Boxes (B, G, 4) and labels (B, G), the last image half padded, and two boxes of each the same."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(images, boxes, 2, generator=generator) * torch.tensor([width, height]) * 0.7
    size = torch.rand(images, boxes, 2, generator=generator) * min(height, width) * 0.4 + 1
    found, labels = (
        torch.cat([corner, corner + size], dim=2),
        torch.randint(1, 81, (images, boxes), generator=generator),
    )
    if boxes > 1:
        found[:, 1] = found[:, 0]
        found[-1, boxes // 2 :], labels[-1, boxes // 2 :] = 0, 0
    return found, labels


def match_whole(anchors, boxes, labels, config):
    """The labels and boxes from the whole IoU of an image, by torchvision's function."""
    real = labels > 0
    iou = box_iou(anchors, boxes).masked_fill(~real, -1.0)
    best, index = iou.max(dim=1)
    foreground = best >= config.fg_iou
    if config.low_quality:
        foreground |= ((iou == iou.amax(0)) & (iou.amax(0) > 0)).any(1)
    matched = torch.where(foreground, labels[index], torch.where(best < config.bg_iou, 0, -1))
    return matched, boxes[index]


@pytest.mark.parametrize("low_quality", [True, False])
@pytest.mark.parametrize(("images", "boxes", "size"), [(9, 7, (64, 96)), (2, 40, (320, 480)), (1, 1, (32, 32))])
def test_the_matcher_in_pieces_gives_the_labels_of_the_whole_to_the_bit(images, boxes, size, low_quality):
    anchors = torch.cat(AnchorGrid(ModelConfig()).levels(*size, torch.device("cpu")))
    found, labels = crowded(images, boxes, *size)
    config = MatcherConfig(0.5, 0.4, low_quality)
    matched, targets = match(anchors, found, labels, config)
    for i in range(images):
        expected, box = match_whole(anchors, found[i], labels[i], config)
        assert torch.equal(matched[i], expected)
        assert torch.equal(targets[i], box)
    assert boxes == 1 or {-1, 0} < set(matched.unique().tolist())


def test_the_matcher_of_a_crowded_photograph_takes_64_mb_at_most(monkeypatch):
    anchors = torch.cat(AnchorGrid(ModelConfig()).levels(800, 1344, torch.device("cpu")))
    assert len(anchors) > 200_000
    found, labels = crowded(1, 90, 800, 1333)
    whole = peak_bytes(lambda: match_whole(anchors, found[0], labels[0], MatcherConfig()))
    for piece in (CPU_PIECE, PIECE):
        monkeypatch.setattr("drrepro.models.anchors.CPU_PIECE", piece)
        assert peak_bytes(lambda: match(anchors, found, labels, MatcherConfig())) <= 64e6 < whole


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0, 1.0], [10.0, 10.0, 5.0, 5.0]])
def test_decode_inverts_encode(weights):
    torch.manual_seed(0)
    corners, sizes = torch.rand(50, 2) * 100, torch.rand(50, 2) * 60 + 1
    boxes = torch.cat([corners, corners + sizes], 1)
    anchors = boxes + torch.rand(50, 4)
    torch.testing.assert_close(
        decode(torch.stack(encode(boxes, anchors, weights), dim=-1), anchors, weights, 62.5),
        boxes,
        atol=1e-3,
        rtol=1e-4,
    )


def test_decode_clamps_the_size():
    anchor = torch.tensor([[0.0, 0, 16, 16]])
    box = decode(torch.tensor([[0.0, 0, 50, 50]]), anchor, [1.0] * 4, 1000 / 16)
    assert (box[0, 2] - box[0, 0]).item() == pytest.approx(16 * 1000 / 16, rel=1e-5)


def naive_match(anchors, boxes, labels, config):
    out = torch.zeros(len(anchors), dtype=torch.int64)
    if len(boxes) == 0:
        return out
    iou = box_iou(anchors, boxes)
    for a in range(len(anchors)):
        best, index = iou[a].max(0)
        low = config.low_quality and any(iou[a, g] == iou[:, g].max() and iou[a, g] > 0 for g in range(len(boxes)))
        if best >= config.fg_iou or low:
            out[a] = labels[index]
        elif best >= config.bg_iou:
            out[a] = -1
    return out


@pytest.mark.parametrize("config", [MatcherConfig(0.5, 0.4), MatcherConfig(0.5, 0.5), MatcherConfig(0.6, 0.3, False)])
def test_match_equals_one_image_and_one_anchor_at_a_time(config):
    torch.manual_seed(3)
    anchors = torch.cat(AnchorGrid(ModelConfig()).levels(64, 64, torch.device("cpu")))
    images = []
    for count in (3, 0, 1):
        corners = torch.rand(count, 2) * 40
        images.append((torch.cat([corners, corners + torch.rand(count, 2) * 30 + 4], 1), torch.randint(1, 5, (count,))))
    boxes, labels = torch.zeros(3, 3, 4), torch.zeros(3, 3, dtype=torch.int64)
    for i, (own, classes) in enumerate(images):
        boxes[i, : len(own)], labels[i, : len(own)] = own, classes
    found, matched = match(anchors, boxes, labels, config)
    for i, (own, classes) in enumerate(images):
        assert found[i].tolist() == naive_match(anchors, own, classes, config).tolist()
    positive = found[0] > 0
    assert positive.any()
    best = box_iou(anchors, images[0][0]).argmax(1)
    torch.testing.assert_close(matched[0][positive], images[0][0][best[positive]])


def test_match_without_any_box_is_background():
    found, boxes = match(torch.rand(7, 4), torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.int64), MatcherConfig())
    assert found.shape == (2, 7)
    assert (found == 0).all()
    assert boxes.shape == (2, 7, 4)


def test_prior_is_the_score_before_training():
    from drrepro.models.retinanet import RetinaNet

    config = ModelConfig(backbone="small", frozen_stages=0, fpn_channels=16, head_convs=1, prior=0.01, head_std=1e-4)
    model, images = RetinaNet(config, 3), torch.zeros(2, 3, 64, 96)
    (logits, deltas), anchors = model(images), model.anchors_of(images)
    count = 9 * (8 * 12 + 4 * 6 + 2 * 3 + 1 * 2 + 1 * 1)
    assert logits.shape == (2, count, 3)
    assert deltas.shape == (2, count, 4)
    assert sum(map(len, anchors)) == count
    assert logits.sigmoid().mean().item() == pytest.approx(0.01, rel=0.05)
    assert math.isfinite(deltas.sum().item())


def test_the_iou_of_pairs_is_the_diagonal_of_all():
    torch.manual_seed(0)
    boxes, others = torch.rand(2, 50, 4).mul(100).unbind()
    boxes[:, 2:] += boxes[:, :2]
    others[:, 2:] += others[:, :2]
    boxes[0, 2:] = boxes[0, :2]  # without area
    torch.testing.assert_close(paired_iou(boxes, others), box_iou(boxes, others).diagonal())
    assert paired_iou(boxes[:1], boxes[:1]).item() == 0

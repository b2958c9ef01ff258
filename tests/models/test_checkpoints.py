import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch.nn import functional
from typer.testing import CliRunner

from drrepro.cli import app
from drrepro.config import compose
from drrepro.errors import UsageError
from drrepro.models.checkpoints import (
    from_maskrcnn_benchmark,
    from_torchvision,
    load_weights,
    read_state,
    to_maskrcnn_benchmark,
)
from drrepro.models.retinanet import RetinaNet

BLOCKS = {1: 3, 2: 4, 3: 6, 4: 3}  # of a ResNet-50


def maskrcnn_benchmark_state(classes):
    """A RetinaNet of ResNet-50 in maskrcnn-benchmark's layout, written down from its description alone."""
    torch.manual_seed(0)
    state = {}

    def conv(name, out, into, kernel, bias=True, gain=2.0):
        fan = into * kernel * kernel
        state[f"{name}.weight"] = torch.randn(out, into, kernel, kernel) * (gain / fan) ** 0.5
        if bias:
            state[f"{name}.bias"] = 0.1 * torch.randn(out)

    def norm(name, width, scale=1.0, variance=1.0):
        state[f"{name}.weight"] = scale * (0.5 + torch.rand(width))
        state[f"{name}.bias"] = 0.1 * torch.randn(width)
        state[f"{name}.running_mean"] = 0.1 * variance**0.5 * torch.randn(width)
        state[f"{name}.running_var"] = variance * (0.5 + torch.rand(width))

    conv("backbone.body.stem.conv1", 64, 3, 7, bias=False, gain=2e-10)  # pixels go up to 255
    norm("backbone.body.stem.bn1", 64, variance=1e-6)  # so little that an eps of 1e-5 would show
    into = 64
    for layer, count in BLOCKS.items():
        width = 32 * 2**layer
        for block in range(count):
            name = f"backbone.body.layer{layer}.{block}"
            for i, (a, b, kernel) in enumerate(((into, width, 1), (width, width, 3), (width, 4 * width, 1)), start=1):
                conv(f"{name}.conv{i}", b, a, kernel, bias=False)
                norm(f"{name}.bn{i}", b, scale=0.2 if i == 3 else 1.0)
            if block == 0:
                conv(f"{name}.downsample.0", 4 * width, into, 1, bias=False)
                norm(f"{name}.downsample.1", 4 * width)
            into = 4 * width
    for stage in (2, 3, 4):
        conv(f"backbone.fpn.fpn_inner{stage}", 256, 128 * 2**stage, 1)
        conv(f"backbone.fpn.fpn_layer{stage}", 256, 256, 3)
    conv("backbone.fpn.top_blocks.p6", 256, 2048, 3)
    conv("backbone.fpn.top_blocks.p7", 256, 256, 3)
    for tower, final, outputs in (("cls_tower", "cls_logits", 9 * classes), ("bbox_tower", "bbox_pred", 36)):
        for i in (0, 2, 4, 6):
            conv(f"rpn.head.{tower}.{i}", 256, 256, 3)
        conv(f"rpn.head.{final}", outputs, 256, 3)
    return state


def plain_forward(state, images):
    """The forward pass of that layout with functions alone; returns logits and deltas, (B, channels, h, w) a level."""

    def conv(x, name, stride=1):
        weight = state[f"{name}.weight"]
        return functional.conv2d(x, weight, state.get(f"{name}.bias"), stride, weight.shape[2] // 2)

    def norm(x, name):
        weight, bias, mean, var = (
            state[f"{name}.{part}"][:, None, None] for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) * weight / var.sqrt() + bias

    x = norm(conv(images, "backbone.body.stem.conv1", 2), "backbone.body.stem.bn1").relu()
    x = functional.max_pool2d(x, 3, 2, 1)
    stages = []
    for layer, count in BLOCKS.items():
        for block in range(count):
            name, stride = f"backbone.body.layer{layer}.{block}", 2 if block == 0 and layer > 1 else 1
            y = norm(conv(x, f"{name}.conv1", stride), f"{name}.bn1").relu()  # the stride in the 1x1
            y = norm(conv(y, f"{name}.conv2"), f"{name}.bn2").relu()
            y = norm(conv(y, f"{name}.conv3"), f"{name}.bn3")
            if block == 0:
                x = norm(conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
            x = (x + y).relu()
        stages.append(x)
    levels, above = [], 0
    for stage in (4, 3, 2):
        above = conv(stages[stage - 1], f"backbone.fpn.fpn_inner{stage}") + above
        levels.insert(0, conv(above, f"backbone.fpn.fpn_layer{stage}"))
        above = functional.interpolate(above, scale_factor=2)
    p6 = conv(x, "backbone.fpn.top_blocks.p6", 2)
    levels += [p6, conv(p6.relu(), "backbone.fpn.top_blocks.p7", 2)]
    outputs = []
    for tower, final in (("cls_tower", "cls_logits"), ("bbox_tower", "bbox_pred")):
        towers = levels
        for i in (0, 2, 4, 6):
            towers = [conv(x, f"rpn.head.{tower}.{i}").relu() for x in towers]
        outputs.append([conv(x, f"rpn.head.{final}") for x in towers])
    return outputs


@pytest.fixture(scope="module")
def coco_checkpoint(tmp_path_factory):
    """A file as maskrcnn-benchmark writes it: 80 classes, wrapped, with a prefix, in the format of 2019."""
    state = maskrcnn_benchmark_state(80)
    path = tmp_path_factory.mktemp("weights") / "dr_R50.pth"
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    wrapped["module.rpn.anchor_generator.cell_anchors.0"] = torch.zeros(9, 4)
    content = {
        "model": wrapped,
        "optimizer": {"state": {}},
        "scheduler": {"milestones": (60_000, 80_000)},
        "iteration": 1,
    }
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return state, path


def caffe(path, *overrides):
    return compose(["model=retinanet_r50_caffe", "schedule.steps=0", f"weights={path}", *overrides])


def load(path, classes, *overrides):
    config = caffe(path, *overrides)
    model = RetinaNet(config.model, classes).eval()
    load_weights(model, config, Path(config.weights), list(range(1, classes + 1)))
    return model


def test_a_whole_checkpoint_goes_in_out_and_in_again_without_a_bit_lost(coco_checkpoint, tmp_path):
    state, path = coco_checkpoint
    model = load(path, 80)
    exported = to_maskrcnn_benchmark(model.state_dict())
    assert exported.keys() == state.keys()
    assert all(torch.equal(exported[name], tensor) for name, tensor in state.items())
    torch.save({"model": exported}, tmp_path / "again.pth")
    again = load(tmp_path / "again.pth", 80).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())
    assert from_maskrcnn_benchmark(exported).keys() == model.state_dict().keys()


@torch.inference_mode()
def test_the_imported_detector_computes_what_the_layout_says(coco_checkpoint):
    state, path = coco_checkpoint
    images = torch.randint(-120, 130, (1, 3, 96, 128)).float()
    model = load(path, 80)
    logits, deltas = model(images)
    for ours, theirs in zip((logits, deltas), plain_forward(state, images), strict=True):
        flat = torch.cat([level.permute(0, 2, 3, 1).flatten(1) for level in theirs], dim=1)
        torch.testing.assert_close(ours.flatten(1), flat, atol=1e-3 * flat.std().item(), rtol=0)
    assert logits.shape == (1, sum(map(len, model.anchors_of(images))), 80)


class Evil:
    def __reduce__(self):
        return (open, ("executed", "w"))


def test_files_that_are_not_weights_are_refused_and_never_run(coco_checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Evil()}, "object.pth")
    for name, content in {"own.pkl": Evil(), "detectron.pkl": {"blobs": {"conv1_w": np.zeros((64, 3, 7, 7))}}}.items():
        (tmp_path / name).write_bytes(pickle.dumps(content))
    torch.save({"conv1.weight": torch.zeros(4)}, "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "truncated.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "old_truncated.pth").write_bytes(coco_checkpoint[1].read_bytes()[:200_000])
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save([torch.zeros(1)], "list.pth")
    torch.save({"model": {"epoch": 3}}, "numbers.pth")
    for name, reason in {
        "object.pth": "not tensors alone",
        "own.pkl": "not tensors alone",
        "detectron.pkl": "not tensors alone",
        "truncated.pth": "damaged or not written by torch.save",
        "old_truncated.pth": "damaged or not written by torch.save",
        "empty.pth": "damaged or not written by torch.save",
        "list.pth": "holds no weights",
        "numbers.pth": "holds no weights",
        "nothing.pth": "cannot be read",
    }.items():
        with pytest.raises(UsageError, match=rf"{name}: {reason}") as caught:
            read_state(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


def refused(state, path, *overrides):
    torch.save(state, path)
    config = compose(["schedule.steps=0", f"weights={path}", *overrides])
    with pytest.raises(UsageError) as caught:
        load_weights(RetinaNet(config.model, 2), config, Path(config.weights), [1, 2])
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


def test_weights_of_another_model_are_refused_by_the_first_tensor(tmp_path):
    path, name = tmp_path / "weights.pth", "fpn.extra_blocks.p6.bias"
    state = RetinaNet(compose([]).model, 2).state_dict()
    without = {n: t for n, t in state.items() if n != name}
    other = "weights of another model: 1 tensors"
    assert refused(without, path) == f"{other} missing, the first is {name}"
    assert refused({**state, "roi.x": torch.zeros(1)}, path) == f"{other} unexpected, the first is roi.x"
    misshapen = refused({**state, name: torch.zeros(3)}, path)
    assert misshapen == f"{other} of another shape, the first is {name} (3, the model's is 64)"
    classifier = torchvision.models.resnet18(weights=None).state_dict()
    assert "a backbone alone, and schedule.steps=0" in refused(classifier, path, "model=resnet18")
    assert "tensors missing" in refused(classifier, path, "model=resnet34", "schedule.steps=1")
    for unknown in ({"encoder.weight": torch.zeros(1)}, {}):
        assert "of no known layout" in refused(unknown, path)


def test_a_checkpoint_of_other_classes_or_another_convention_is_refused(coco_checkpoint):
    _, path = coco_checkpoint
    with pytest.raises(UsageError, match=rf"{path}: detects 80 classes, the data set has 3"):
        load(path, 3)
    with pytest.raises(UsageError, match=r"weights of a detector with model.convention=maskrcnn_benchmark, not torch"):
        load(path, 80, "model.convention=torchvision")


def test_a_backbone_alone_leaves_the_head_as_it_was(tmp_path):
    torch.manual_seed(1)
    theirs = torchvision.models.resnet50(weights=None)
    torch.save(theirs.state_dict(), tmp_path / "resnet50.pth")
    config = compose(["model=retinanet_r50", f"weights={tmp_path / 'resnet50.pth'}"])
    model = RetinaNet(config.model, 2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    load_weights(model, config, Path(config.weights), [1, 2])
    after = model.state_dict()
    for name, tensor in theirs.state_dict().items():
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked"):
            assert torch.equal(after[f"backbone.{name}"], tensor), name
    assert all(torch.equal(after[n], before[n]) for n in before if not n.startswith("backbone."))


def test_torchvisions_old_and_new_names_are_the_same_and_its_outputs_go_by_category_id():
    torch.manual_seed(2)
    new = torchvision.models.detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    old = {}
    for name, tensor in new.items():
        for i in range(4):
            name = name.replace(f"head.conv.{i}.0.", f"head.conv.{2 * i}.").replace(f"blocks.{i}.0.", f"blocks.{i}.")
        old[name] = tensor
    assert len(old.keys() - new.keys()) == 2 * (8 + 6)
    ids = [1, 13, 90]  # with gaps
    ours = from_torchvision(new, ids)
    assert ours.keys() == from_torchvision(old, ids).keys()
    assert all(torch.equal(tensor, from_torchvision(old, ids)[name]) for name, tensor in ours.items())
    rows = [anchor * 91 + i for anchor in range(9) for i in ids]
    their_weight = new["head.classification_head.cls_logits.weight"]
    assert torch.equal(ours["classifier.final.weight"], their_weight[rows])
    config = compose(["model=retinanet_r50_torchvision"])
    needed = {n: t.shape for n, t in RetinaNet(config.model, 3).state_dict().items()}
    assert {n: t.shape for n, t in ours.items() if not n.endswith("num_batches_tracked")} == needed
    with pytest.raises(UsageError, match="outputs for category ids below 91, the data set has ids up to 91"):
        from_torchvision(new, [1, 91])


def test_imagenet_weights_come_from_the_cache_or_say_where_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    config = compose(["model=retinanet_r50", "model.backbone=resnet18"])
    model = RetinaNet(config.model, 2)

    def offline(*arguments, **keywords):
        raise OSError("Name or service not known")

    monkeypatch.setattr("torch.hub.urlopen", offline)
    with pytest.raises(
        UsageError, match=r"resnet18-f37072fd.pth cannot be had \(Name .*\); get it from https://.*=PATH"
    ):
        load_weights(model, config, Path(config.weights), [1, 2])
    cached = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    cached.parent.mkdir(parents=True, exist_ok=True)
    theirs = torchvision.models.resnet18(weights=None).state_dict()
    torch.save(theirs, cached)
    load_weights(model, config, Path(config.weights), [1, 2])
    assert torch.equal(model.state_dict()["backbone.layer4.1.conv2.weight"], theirs["layer4.1.conv2.weight"])
    cached.write_bytes(b"half")
    with pytest.raises(UsageError, match=r"resnet18-f37072fd.pth cannot be had \("):
        load_weights(model, config, Path(config.weights), [1, 2])


def test_evaluate_takes_a_file(environment, data_folder, tmp_path):
    path = tmp_path / "dr_R50.pth"
    state = maskrcnn_benchmark_state(10)
    torch.save({"model": state}, path)
    digits = data_folder / "digits"
    arguments = [
        "evaluate",
        "--json",
        f"weights={path.name}",
        "model=retinanet_r50_caffe",
        "data=coco_custom",
        f"data.test_json={digits / 'test.json'}",
        f"data.test_images={digits / 'images' / 'test'}",
        "input.scale=64",
    ]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["config"]["weights"] == str(path)
    assert record["config"]["weights_sha256"]
    assert record["data"]["test_images"] == 8
    assert record["config"]["input"]["bgr"]
    assert (environment / record["id"] / "record.json").is_file()

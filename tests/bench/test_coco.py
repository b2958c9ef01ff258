import pytest

from drrepro.bench import coco


def test_all_evaluators_are_measured_and_agree():
    pytest.importorskip("hotcoco")
    done = []
    frame = coco.bench(lambda i, n: done.append((i, n)), images=12, classes=3, detections=10)
    assert frame["evaluator"].tolist() == list(coco.EVALUATORS)
    assert (frame["detections"] >= 120).all()
    assert (frame["mb_peak"] >= frame["mb_before"]).all()
    assert frame["ratio"][0] == 1
    assert done[-1] == (5, 5)


def test_without_hotcoco_the_others_are_measured(monkeypatch):
    monkeypatch.setattr(coco.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(coco, "EVALUATORS", {name: coco.EVALUATORS[name] for name in ("pycocotools", "hotcoco")})
    frame = coco.bench(lambda i, n: None, images=4, classes=2, detections=5)
    assert frame["evaluator"].tolist() == ["pycocotools"]

import pytest

from drrepro.bench import estimate
from tests.conftest import TINY


def test_photographs_of_1080p_are_estimated_and_run(monkeypatch):
    tiny = [*TINY, "schedule.images_per_step=2"]
    monkeypatch.setattr(estimate, "PHOTOGRAPHS", {"train": 3, "test": 2})
    monkeypatch.setattr(estimate, "CONFIGS", {"small": ["data=digits", *tiny], "photographs": tiny})
    done = []
    frame = estimate.bench(lambda i, n: done.append((i, n)))
    assert list(frame["run"]) == ["small", "photographs"]
    assert (frame[["estimated", "measured"]] > 0).all(axis=None)
    assert frame["ratio"].tolist() == pytest.approx((frame["estimated"] / frame["measured"]).tolist())
    assert done == [(1, 2), (2, 2)]

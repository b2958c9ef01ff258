"""Verdicts from constructed records and matches: four outcomes of each claim."""

import json
import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from drrepro.errors import UsageError
from drrepro.evaluation.densities import FINE, STATISTICS, Densities, as_bins, separation
from drrepro.report import claims
from drrepro.report.cells import estimate, interval_text
from drrepro.report.claim import RULE, Claim, Part
from drrepro.report.claim_text import claim_table
from drrepro.report.decision import p_value
from drrepro.report.evidence import Evidence, gather
from drrepro.report.paper_claims import ABOUT_TWO
from drrepro.report.written import claim_files
from drrepro.runs.kept import write_densities
from drrepro.studies import plan, planning, study
from tests.report.test_tables import fake

CLAIMS = {
    "threshold": "thresholds",
    "separation": "thresholds",
    "scale": "scales",
    "average": "scales",
    "dataset": "datasets",
}


@pytest.fixture(autouse=True)
def _fewer_resamples(monkeypatch):
    monkeypatch.setattr("drrepro.report.evidence.RESAMPLES", 200)


@cache
def planned(name, seeds):
    return planning.plan_study(CLAIMS[name], [f"seed={seeds}"])


def claim(name, runs, ap, seeds="0", images=400, **more):
    """Return one claim, from records in which runs have the AP that ``ap`` gives."""
    fake(runs, planned(name, seeds), ap, images=images, **more)
    (found,) = [c for c in claims.build_claims(gather(plan.load_plans(runs), runs)) if c.name == name]
    return found


def gain(value):
    """DR is above focal by ``value`` at each threshold and scale."""
    return lambda config, threshold: 0.3 + value * (config.loss.name == "dr")


def thresholds(moves, falls):
    """DR moves and focal falls by this much from threshold 0.05 to 0.5."""
    return lambda c, t: 0.6 - (t - 0.05) / 0.45 * (moves if c.loss.name == "dr" else falls)


@pytest.mark.parametrize(
    ("name", "ap", "verdict"),
    [
        ("threshold", thresholds(0, 0.15), "holds"),
        ("threshold", thresholds(0.1, 0.15), "does not hold"),  # DR moves
        ("threshold", thresholds(0, 0), "does not hold"),  # focal does not fall
        ("threshold", thresholds(0, 0.03), "undecided"),
        ("threshold", thresholds(0.01, 0.15), "undecided"),
        ("scale", gain(0.1), "holds"),
        ("scale", lambda c, t: 0.3 + (c.input.scale / 128 - 0.75) * (c.loss.name == "dr"), "does not hold"),
        ("scale", gain(0), "does not hold"),  # the same is not above
        (
            "scale",
            lambda c, t: 0.3 + (0.1 if c.input.scale > 64 else 0.1 * c.seed) * (c.loss.name == "dr"),
            "undecided",
        ),
        ("average", gain(0.1), "does not hold"),
        ("average", gain(-0.02), "does not hold"),
        ("average", gain(0.03), "undecided"),
        ("dataset", gain(0.1), "holds"),
        ("dataset", gain(-0.1), "does not hold"),
        ("dataset", lambda c, t: 0.3 + 0.02 * (c.seed - 0.9) * (c.loss.name == "dr"), "undecided"),
    ],
)
def test_the_intervals_decide(tmp_path, name, ap, verdict):
    found = claim(name, tmp_path, ap, "0,1,2")
    assert found.verdict == verdict
    assert {part.cell.basis for part in found.parts} == {"images and seeds"}


def test_one_seed_decides_nothing(tmp_path):
    found = claim("dataset", tmp_path, gain(0.1))
    (part,) = found.parts
    assert found.verdict == "undecided"
    assert part.cell.basis == "images"
    assert part.cell.low > 0
    row = claim_table([found]).iloc[0]
    assert (row["p"], row["to decide"]) == ("", "more seeds")


def test_parts_are_corrected_for_their_number_and_say_what_would_decide_them(tmp_path):
    def ap(config, threshold):  # each scale has p = 0.04 alone
        return 0.3 + (0.05 + 0.0183 * (config.seed - 1)) * (config.loss.name == "dr")

    found = claim("scale", tmp_path, ap, "0,1,2", images=0)
    alone = p_value(found.parts[0].cell, found.parts[0].least)
    assert 0.04 < alone < 0.05
    assert found.verdict == "undecided"
    assert [decision.p for decision in found.decisions] == pytest.approx([5 * alone] * 5)
    decision = found.decisions[0]
    assert decision.detectable > 0.05  # what was found is less than what is seen
    assert decision.needs == "5 seeds"
    written = json.loads(claim_files([found])["claims.json"])["claims"][0]["parts"][0]
    assert (written["verdict"], written["to_decide"]) == ("undecided", "5 seeds")
    assert written["detectable"] == pytest.approx(100 * decision.detectable, abs=1e-5)
    text = claim_table([found]).iloc[0]["to decide"]
    assert text == f"sees {100 * decision.detectable:.1f}; 5 seeds"


def test_about_two_holds_when_the_interval_lies_from_one_to_three(tmp_path):
    def ap(config, threshold):  # AP has steps of 1/101, at another place with each scale
        return 0.3 + 0.0013 * config.input.scale + 0.02 * (config.loss.name == "dr")

    found = claim("average", tmp_path, ap, "0,1,2", images=2000)
    (part,) = found.parts
    assert found.verdict == "holds"
    assert 0.01 < part.cell.low < 0.02 < part.cell.high < 0.03
    assert part.shown().cell.published == pytest.approx(1.92)


def densities(distance, spread=0.0):
    """Foreground at score 0.5, background lower by ``distance`` with DR and by 0.2 with focal."""

    def of(config):
        below = 0.2 if config.loss.name == "focal" else distance + spread * (config.seed - 1)
        histograms = np.zeros((2, 200), int)
        histograms[0, 80:121] = 100
        at = round(100 - 200 * below)
        histograms[1, at - 40 : at + 41] = 9000
        foreground, background = histograms.tolist()
        counts = {"foreground": foreground, "background": background, "auc": 0.5 + 0.5 * below}
        own, shared = config.matcher.bg_iou, 0.45  # each also has the labels that it was trained with
        return [{"fg_iou": 0.5, "bg_iou": iou, **counts} for iou in (own, shared)]

    return of


@pytest.mark.parametrize(
    ("seeds", "own", "verdict"),
    [
        ("0,1,2", densities(0.3), "holds"),
        ("0,1,2", densities(0.1), "does not hold"),
        ("0,1,2", densities(0.21, spread=0.05), "undecided"),
        ("0", densities(0.3), "undecided"),  # no interval: images are not resampled here
    ],
)
def test_separation_is_decided_by_the_spread_over_seeds(tmp_path, seeds, own, verdict):
    found = claim("separation", tmp_path, gain(0), seeds, images=0, densities=own)
    assert found.verdict == verdict
    assert len(found.parts) == 3  # of the one matcher in common
    for part in found.parts:
        assert "background of IoU < 0.45, " in part.what
        assert part.cell.basis == ("seeds" if "," in seeds else "")
        assert part.cell.published is None


def test_gap_overlap_and_auc_are_those_of_the_histograms(tmp_path):
    gap, overlap, auc = claim("separation", tmp_path, gain(0), images=0, densities=densities(0.3)).parts
    assert gap.cell.value == pytest.approx(0.3 - 0.2)
    assert "DR - focal 0.30 - 0.20" in gap.what
    # 41 bins of foreground from 80, 81 of background up to bin 100 with focal, up to 80 with DR
    assert "focal - DR 0.259 - 0.012" in overlap.what
    assert overlap.cell.value == pytest.approx(20 / 81)
    assert "DR - focal 0.6500 - 0.6000" in auc.what


def test_separation_is_resampled_over_images_in_pairs(tmp_path):
    """Both detectors' scores rise with the image: a pair hardly spreads, where a detector alone does."""
    rng = np.random.default_rng(0)
    images = rng.integers(100, 300, 50)

    def write(config, offset):
        counts = np.zeros((2, 50, FINE), np.int32)
        counts[0, :, 150] = 1000
        counts[1, np.arange(50), images + offset] = 10
        folder = tmp_path / planning.run_id(config)
        write_densities(folder, Densities({(0.5, 0.45): counts}))
        below, above = as_bins(counts.sum(axis=1))
        totals = {"foreground": above.tolist(), "background": below.tolist()}
        return [{"fg_iou": 0.5, "bg_iou": 0.45, "auc": float(separation(*counts.sum(1))[2]), **totals}]

    own = {"focal": 0, "dr": 2}
    found = claim("separation", tmp_path, gain(0), images=0, densities=lambda c: write(c, own[c.loss.name]))
    gap = found.parts[0].cell
    assert gap.basis == "images"
    assert gap.value == pytest.approx(2 / 200)
    assert gap.low == pytest.approx(gap.value)
    assert gap.high == pytest.approx(gap.value)
    (evidence, *_) = gather(plan.load_plans(tmp_path), tmp_path)
    alone = next(iter(evidence.separated.values()))[0.5, 0.45]
    assert np.ptp(alone[0]) > 0.02


@pytest.mark.parametrize("name", CLAIMS)
def test_what_was_not_run_is_said(tmp_path, name):
    found = claim(name, tmp_path, gain(0.1), images=0)
    for loss in ("focal", "dr"):
        assert found.verdict != "not run"
        for path in tmp_path.glob(f"*-{loss}-*/record.json"):
            content = path.read_text()
            path.unlink()
            (again,) = [c for c in claims.build_claims(gather(plan.load_plans(tmp_path), tmp_path)) if c.name == name]
            assert again.verdict == "not run"
            path.write_text(content)
            break


def test_densities_that_are_secret_are_not_run(tmp_path):
    assert claim("separation", tmp_path, gain(0), images=0, densities=lambda config: []).verdict == "not run"


def test_records_of_before_compare_under_a_matcher_that_they_share_and_without_auc(tmp_path):
    def old(config, iou):
        (own, _) = densities(0.3)(config)
        return [] if config.seed == 1 and config.loss.name == "dr" else [{**own, "bg_iou": iou, "auc": None}]

    found = claim("separation", tmp_path / "1", gain(0), "0,1,2", images=0, densities=lambda c: old(c, 0.5))
    assert [part.what.split(",")[0] for part in found.parts] == list(STATISTICS[:2])
    assert [part.cell.n for part in found.parts] == [2, 2]
    own = {"dr": 0.5, "focal": 0.4}
    apart = claim("separation", tmp_path / "2", gain(0), "0,1", images=0, densities=lambda c: old(c, own[c.loss.name]))
    assert apart.verdict == "not run"
    assert apart.parts[0].what == f"{STATISTICS[0]}, evaluated with no matcher in common"


def test_other_losses_on_another_data_set_take_no_claim_away(tmp_path):
    both = planning.plan_study("thresholds", ["data=digits"])
    alone = planning.plan_study("thresholds", ["data=letters", "loss=focal"])
    for planned_ in (both, alone):
        fake(tmp_path, planned_, gain(0.1), images=50)
    found = claims.build_claims(gather(plan.load_plans(tmp_path), tmp_path))
    assert [(c.name, c.data) for c in found if c.place in ("Table 1", "Figure 1")] == [
        *(("threshold", data) for data in ("digits", "letters")),
        *(("separation", data) for data in ("digits", "letters")),
    ]
    other = study.Study(**{**vars(both[0].study), "arms": {"focal": both[0].study.arms["focal"]}})
    none = replace(alone[0], study=other)
    assert {c.name for c in claims.build_claims([Evidence(none, {}, {})])} == set(CLAIMS)  # the paper's, not run


def test_a_claim_that_is_not_at_hand_is_said_and_left_out(tmp_path, caplog):
    planned_, _ = planning.plan_study("datasets", [])
    away = replace(planned_, study=replace(planned_.study, claims=["dataset", "nowhere.claim"]))
    assert [c.name for c in claims.claims_of(Evidence(away, {}, {}))] == ["dataset"]
    assert "left out: claim nowhere.claim: No module named 'nowhere'" in caplog.text
    wrong = replace(planned_, study=replace(planned_.study, claims=["treshold"]))
    with pytest.raises(UsageError, match="claim treshold: not known; choose from threshold, separation"):
        claims.claims_of(Evidence(wrong, {}, {}))
    unfit = replace(planned_, study=replace(planned_.study, claims=["threshold"]))
    with pytest.raises(UsageError, match="study datasets: claim threshold: "):
        claims.claims_of(Evidence(unfit, {}, {}))


def test_claims_without_a_plan_are_not_run():
    found = claims.build_claims([])
    assert [c.name for c in found] == list(CLAIMS)
    assert {c.verdict for c in found} == {"not run"}


def test_a_run_without_matches_leaves_a_claim_undecided(tmp_path):
    found = claim("dataset", tmp_path, gain(0.1), images=0)
    assert found.verdict == "undecided"
    assert math.isnan(found.parts[0].cell.low)


def test_seeds_that_disagree_leave_a_claim_undecided(tmp_path):
    def ap(config, threshold):
        return 0.3 + (0.1 + 0.06 * (config.seed - 1)) * (config.loss.name == "dr")

    found = claim("dataset", tmp_path / "three", ap, seeds="0,1,2")
    assert found.verdict == "undecided"
    (part,) = found.parts
    assert (part.cell.n, part.cell.basis) == (3, "images and seeds")
    assert part.cell.value == pytest.approx(0.1)
    assert part.cell.sd == pytest.approx(0.06)


def test_what_is_undecided_needs_more_seeds_than_there_are():
    """Also the parts that would have passed, had Holm's procedure not stopped before."""
    cells = [estimate([np.array([value + spread * k]) for k in (-1, 0, 1)]) for value, spread in ((1, 0.24), (1, 0.3))]
    cells += [estimate([np.array([1.0 + 0.21 * k]) for k in (-1, 0, 1)])] * 2
    found = Claim("", "", "", "", [Part("", cell, least=0, is_ap=False) for cell in cells])
    assert {decision.verdict for decision in found.decisions} == {"undecided"}
    assert p_value(cells[1], 0) <= 0.05
    for part, decision in zip(found.parts, found.decisions, strict=True):
        assert decision.detectable > part.cell.value
        assert int(decision.needs.removesuffix(" seeds")) > 3


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.1, 2.9, "holds"),
        (0.9, 3, "undecided"),
        (3.1, 4, "does not hold"),
        (-1, 0.9, "does not hold"),
        (0, 4, "undecided"),
    ],
)
def test_the_interval_must_lie_wholly_on_one_side(low, high, verdict):
    ends = np.array([low, high]) / 100
    cell = estimate([np.array([ends.mean(), *np.linspace(*ends, 1001)])] * 2)  # of two seeds that agree
    assert Claim("", "", "", "", [Part("mean", cell, *ABOUT_TWO)]).verdict == verdict


def test_claims_are_written_with_their_rule(tmp_path):
    found = claim("dataset", tmp_path, gain(0.1), "0,1,2")
    files = claim_files([found])
    written = json.loads(files["claims.json"])
    assert written["rule"] == RULE
    (one,) = written["claims"]
    (part,) = one["parts"]
    assert (one["verdict"], one["data"], one["place"]) == ("holds", "letters", "Table 3")
    assert (part["paper"], part["should_be"], part["sd"]) == (pytest.approx(1.7), "above 0", 0)
    assert part["value"] == pytest.approx(10)
    text = files["claims.md"]
    assert RULE in text
    assert "| holds" in text
    assert interval_text(found.parts[0].shown().cell) in text

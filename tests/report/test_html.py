"""The report: what stands in it, and in a real browser how it behaves."""

import json
import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from drrepro.cli import app
from drrepro.data.splits import open_split
from drrepro.evaluation.coco import match_detections
from drrepro.report.claim import Claim
from drrepro.report.intervals import claim_intervals
from drrepro.runs.kept import write_detections, write_matches
from drrepro.studies import plan, planning
from tests.report.test_examples import detections
from tests.report.test_tables import fake, robust

ARTEFACTS = Path(__file__).parents[2] / "build" / "screenshots"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DISTANCE = """() => {
  const luminance = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const page = luminance(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll('p, a:not(.skip), th, td, li, figcaption, .verdict, summary')].map(e => {
    const ink = luminance(getComputedStyle(e).color);
    return (Math.max(ink, page) + 0.05) / (Math.min(ink, page) + 0.05);
  });
}"""  # contrast as WCAG 2 has it


def make_runs(runs, data_folder):
    """Runs of all tables but one run of Table 2; the two of Table 1 on digits have detections."""
    for planned in planning.everything(["seed=0,1"]):
        fake(runs, planned, robust, images=8)
    _, configs = planning.plan_study("thresholds", [])
    tested = open_split(configs[0].data, "test", data_folder)
    for config in configs:
        found = detections(tested, 0.5)
        write_detections(runs / planning.run_id(config), found)
        write_matches(runs / planning.run_id(config), match_detections(tested.ground_truth(), found))
    missing = next(cell.run_id for cell in planning.plan_study("scales", [])[0].points if cell.setting == "600")
    (runs / missing / "record.json").unlink()


@pytest.fixture(scope="module")
def page(data_folder, tmp_path_factory):
    """The path of a report."""
    folder = tmp_path_factory.mktemp("report")
    make_runs(folder / "runs", data_folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRREPRO_DATA", str(data_folder))
        patch.setenv("DRREPRO_RUNS", str(folder / "runs"))
        patch.setattr("drrepro.report.evidence.RESAMPLES", 50)
        command = ["report", "html", "--results", str(folder), "--json", "--quiet"]
        said = json.loads(CliRunner().invoke(app, command, catch_exceptions=False).stdout)
    path = folder / "report.html"
    assert said == {"report": str(path), "bytes": path.stat().st_size}
    return path


@pytest.fixture(scope="module")
def browser():
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser here: none of {', '.join(BROWSERS)}")
    with sync.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser, page):
    """Return a function that opens the page, and what it said or asked for meanwhile."""
    said = []

    def open_page(**how):
        tab = browser.new_context(**how).new_page()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: said.append(request.url))
        tab.goto(page.as_uri())
        return tab

    yield open_page
    assert {url for url in said if not url.startswith("data:")} == {page.as_uri()}  # no message, no other request


def test_every_claim_and_number_stands_in_it(page):
    text = page.read_text()
    assert text.count('<article class="claim') == 7
    for verdict in ("holds", "does not hold", "undecided", "not run"):
        assert re.search(rf"<b>\d</b> <span class=\"verdict\">{verdict}<", text)
    assert "Table 1, score thresholds (paper: COCO val2017; ours: digits, 4 of 4 runs" in text
    assert "19 of 20 runs" in text
    assert "<code>drrepro sweep scales data=digits seed=0,1</code>" in text
    assert "<code>drrepro train data=digits loss=focal input.scale=64 seed=1</code>" in text
    assert "35.0 ± 0.0" in text
    assert "stands beside numbers on COCO val2017: AP does not compare" in text
    assert "<code>drrepro data make digits</code>" in text
    assert page.stat().st_size < 3e6
    assert "No pictures: " in text  # of letters, whose runs have no detections
    assert text.count("<svg") == 8  # claims; three of each Table 1; scales


def test_the_ids_of_a_page_are_its_own_and_nothing_is_linked_from_outside(page):
    text = page.read_text()
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)) <= {(i, "") for i in ids} | {("", i) for i in ids}
    assert not re.findall(r'(?:src|href)="(?!#|data:)', text)
    assert "<script" not in text


def test_questions_have_sections_of_their_own(environment, data_folder, monkeypatch):
    monkeypatch.setattr("drrepro.report.evidence.RESAMPLES", 50)
    for name, seeds in (("thresholds", "0,1"), ("length", "0,1"), ("same", "range(4)")):
        fake(environment, planning.plan_study(name, [f"seed={seeds}"]), robust, images=8)
    report = ["--quiet", "--results", "results"]
    (Path("results") / "bench").mkdir(parents=True)
    (Path("results") / "bench" / "verdicts.csv").write_text(
        "measured,seeds,of,per cent\n<i>covered,2,1000,95.0\napart,1,190,\n"
    )
    CliRunner().invoke(app, ["report", "html", *report], catch_exceptions=False)
    text = Path("results/report.html").read_text()
    sections = dict(re.findall(r'<section id="question-(\w+)".*?>(.*?)</section>', text, re.DOTALL))
    assert list(sections) == ["figure1", "length", "same"]
    assert "Are the densities compared alike?" in sections["figure1"]
    assert "On digits: does not hold; the numbers stand under Claims." in sections["figure1"]
    assert sections["figure1"].count("<svg") == 1
    assert "Is focal loss merely slower?" in sections["length"]
    assert sections["length"].count("<svg") == 2
    assert "length on digits with all metrics" in sections["length"]
    assert "The AP of DR is above that of focal at every setting of steps." in sections["length"]
    assert "&lt;i&gt;covered" in sections["same"]
    assert "nan" not in sections["same"]
    tables = text[text.index('<section id="tables"') : text.index('<section id="question-figure1"')]
    assert "length on digits" not in tables
    rest = text[text.index('<section id="figures"') : text.index('<section id="detections"')]
    assert rest.count("<svg") == 2  # AP against threshold, training
    for question in ("figure1", "length", "same"):
        assert f'<a href="#question-{question}">' in text


def test_names_are_escaped(environment, data_folder):
    planned, configs = planning.plan_study("thresholds", ["data=voc_custom", "data.root='<b>&'"])
    fake(environment, (planned, configs), robust)
    CliRunner().invoke(app, ["report", "html", "--quiet", "--results", "."], catch_exceptions=False)
    text = Path("report.html").read_text()
    assert "<b>&" not in text
    assert "&lt;b&gt;&amp;" in text


def test_a_report_of_nothing_run_says_so(environment):
    for planned, _ in planning.everything([]):
        plan.save_plan(planned, environment)
    CliRunner().invoke(app, ["report", "html", "--quiet", "--results", "."], catch_exceptions=False)
    text = Path("report.html").read_text()
    assert '<b>7</b> <span class="verdict">not run<' in text
    assert "0 of 10" in text
    assert claim_intervals([Claim("none", "", "", "", [])]) is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_read_in_light_and_dark(opened, scheme):
    tab = opened(color_scheme=scheme, viewport={"width": 1200, "height": 900})
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    tab.screenshot(path=ARTEFACTS / f"report-{scheme}.png", full_page=True)
    assert min(tab.evaluate(DISTANCE)) >= 4.5
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")


def test_tables_have_headers_for_every_cell_and_pictures_have_words(opened):
    tab = opened()
    tables = tab.locator("table")
    assert tables.count() == 7 + 2 * 4 + 2 + 1  # claims, tables twice, data sets, runs
    assert tab.evaluate("[...document.querySelectorAll('th')].every(th => th.scope)")
    assert tab.evaluate("[...document.querySelectorAll('tbody tr')].every(row => row.querySelector('th'))")
    assert tab.evaluate(
        "[...document.querySelectorAll('th[scope=colgroup]')].every("
        "th => th.closest('table').querySelectorAll('colgroup').length > 1)"
    )
    assert tab.evaluate(
        "[...document.querySelectorAll('table')].every(t => t.caption || t.getAttribute('aria-labelledby'))"
    )
    assert tab.evaluate("[...document.images].every(i => i.alt && i.complete && i.naturalWidth > 0)")
    assert tab.evaluate("document.images.length") > 3
    assert tab.get_by_role("img").count() >= 8 + 3
    assert tab.get_by_role("heading", level=2).count() == 8


def test_everything_is_reached_with_the_keyboard(opened):
    tab = opened()
    reached = []
    for _ in range(200):
        tab.keyboard.press("Tab")
        where = tab.evaluate(
            "(e => e.id || e.getAttribute('href') || e.className || e.tagName)(document.activeElement)"
        )
        if reached and where == "BODY":
            break
        reached.append(where)
    assert reached[:2] == ["#claims", "#claims"]  # the skip link, then the sections
    assert reached.count("SUMMARY") == tab.locator("summary").count() == 5
    assert reached.count("wide") >= 7 + 4 + 8 + 2
    tab.locator("summary").first.focus()
    tab.keyboard.press("Enter")
    assert tab.locator("details").first.get_attribute("open") is not None


def test_a_phone_shows_it_without_scrolling_the_page_sideways(opened):
    tab = opened(viewport={"width": 360, "height": 740})
    tab.screenshot(path=ARTEFACTS / "report-phone.png", full_page=True)
    assert tab.evaluate("document.documentElement.scrollWidth") == 360


def test_it_is_printed_in_black_on_white_with_all_its_tables(opened):
    tab = opened(color_scheme="dark", viewport={"width": 1030, "height": 700})  # A4, landscape, within its margins
    tab.emulate_media(media="print")
    assert not tab.locator("nav").is_visible()
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert min(tab.evaluate(DISTANCE)) >= 4.5
    hidden = (
        "[...document.querySelectorAll('details table')].filter(t => !t.checkVisibility({contentVisibilityAuto: true}))"
    )
    assert tab.evaluate(f"{hidden}.length") == 0
    assert tab.evaluate("Math.max(...[...document.querySelectorAll('table')].map(t => t.scrollWidth))") <= 1030

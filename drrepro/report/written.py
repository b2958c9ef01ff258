"""The text files of results/: tables and claims as a function of the evidence, and the evidence itself.

Beside the tables lie the plans, records and resampled AP behind them, so that anybody can make every table, claim and
interval again without running anything: see `drrepro.report.verify`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from drrepro.errors import UsageError
from drrepro.files import atomic_write, write_text
from drrepro.report.claim import RULE, Claim
from drrepro.report.claim_text import as_json, claim_table
from drrepro.report.evidence import Evidence, Resampled, Separated
from drrepro.report.table import Table, display, flat
from drrepro.report.tables import build_tables, plain_table
from drrepro.runs.records import load_record
from drrepro.studies.plan import as_dict, read_plan

CALIBRATION = "bench/verdicts"
Files = dict[str, str]  # text by path under results/


def table_files(found: list[Evidence]) -> Files:
    """Return the tables as csv, md and tex, grids as csv and md, and what each run took, under <data>/."""
    files: Files = {}
    for table in build_tables(found):
        files |= _table_files(table)
    for evidence in found:
        if evidence.plan.study is None:
            files |= _plain_files(f"{evidence.plan.data}/{evidence.plan.name}", plain_table(evidence))
    for data in sorted({evidence.plan.data for evidence in found}):
        files |= _plain_files(f"{data}/runs", _run_table(found, data))
    return files


def claim_files(claims: list[Claim]) -> Files:
    """Return claims.json and claims.md."""
    markdown = claim_table(claims).to_markdown(index=False, disable_numparse=True)
    content = json.dumps(as_json(claims), indent=1, allow_nan=False)
    return {"claims.json": f"{content}\n", "claims.md": f"{markdown}\n\n{RULE}\n"}


def calibration_files(frame: pd.DataFrame) -> Files:
    """Return what `drrepro.report.calibration.calibrate` found, as csv and md."""
    return _plain_files(CALIBRATION, frame)


def write_files(files: Files, results: Path) -> list[Path]:
    """Write each file atomically; return the paths."""
    for name, text in files.items():
        write_text(results / name, text)
    return [results / name for name in files]


def keep(found: list[Evidence], results: Path) -> list[Path]:
    """Write the plans, records and resampled AP behind the tables under results/<data>/; return the paths."""
    paths = []
    for evidence in found:
        folder = results / evidence.plan.data
        files = {f"plans/{evidence.plan.name}.json": json.dumps(as_dict(evidence.plan), indent=1) + "\n"}
        files |= {f"records/{name}.json": json.dumps(record) + "\n" for name, record in evidence.records.items()}
        paths += write_files(files, folder)
        for name in evidence.records:
            own = (evidence.resampled.get(name, {}), evidence.separated.get(name, {}))
            if any(own):
                paths.append(_write_resampled(folder / "resampled" / f"{name}.npz", *own))
    return sorted(set(paths))


def read_kept(results: Path) -> list[Evidence]:
    """Return the evidence that `keep` wrote. Raises UsageError where there is none, or a damaged file."""
    paths = sorted(results.glob("*/plans/*.json"))
    if not paths:
        raise UsageError(f"{results}: no results here with the plans and records behind them; `drrepro report tables`")
    found = []
    for path in paths:
        plan, folder = read_plan(path), path.parents[1]
        read = {point.run_id: load_record(folder / "records" / f"{point.run_id}.json") for point in plan.points}
        records = {name: record for name, record in read.items() if record is not None}
        kept = {name: _read_resampled(folder / "resampled" / f"{name}.npz") for name in records}
        resampled = {name: own for name, (own, _) in kept.items()}
        separated = {name: own for name, (_, own) in kept.items()}
        found.append(Evidence(plan, records, resampled, separated))
    return found


def _write_resampled(path: Path, resampled: Resampled, separated: Separated) -> Path:
    arrays: dict[str, Any] = {}
    if resampled:
        arrays |= {"thresholds": np.array(list(resampled)), "AP": np.stack(list(resampled.values()))}
    if separated:
        arrays |= {"matchers": np.array(list(separated)), "separation": np.stack(list(separated.values()))}
    atomic_write(path, lambda file: np.savez_compressed(file, **arrays))
    return path


def _read_resampled(path: Path) -> tuple[Resampled, Separated]:
    """Return what `_write_resampled` wrote; nothing where nothing was kept."""
    if not path.is_file():
        return {}, {}
    try:
        with np.load(path, allow_pickle=False) as kept:
            resampled: Resampled = {}
            separated: Separated = {}
            if "thresholds" in kept:
                ap = kept["AP"] if "AP" in kept else kept["ap"] / 100  # as drrepro 1 kept it, in per cent
                resampled = dict(zip(kept["thresholds"].tolist(), ap, strict=True))
            if "matchers" in kept:
                separated = dict(zip(map(tuple, kept["matchers"].tolist()), kept["separation"], strict=True))
            return resampled, separated
    except Exception as error:  # numpy raises whatever the damaged bytes make it raise
        raise UsageError(f"{path}: not readable ({error}); remove it to do without intervals of this run") from None


def _table_files(table: Table) -> Files:
    stem = f"{table.data}/{table.study.stem}"
    text = display(table)
    note = "\n".join(["", *(f"- {finding}" for finding in table.findings)])
    markdown = text.to_markdown(index=False, disable_numparse=True)  # numparse would drop the zero of 35.0
    label = f"tab:{table.data}{table.study.number or table.study.name}"
    latex = text.to_latex(index=False, escape=True, caption=table.title, label=label)
    return {
        f"{stem}.csv": flat(table.frame).to_csv(index=False, float_format="%.4f"),
        f"{stem}.md": f"{table.title}\n\n{markdown}\n{note}\n",
        f"{stem}.tex": latex,
    }


def _plain_files(stem: str, frame: pd.DataFrame) -> Files:
    return {
        f"{stem}.csv": frame.to_csv(index=False, float_format="%.4f"),
        f"{stem}.md": frame.to_markdown(index=False, floatfmt=".4g") + "\n",
    }


def _run_table(found: list[Evidence], data: str) -> pd.DataFrame:
    """Return what each run on a data set took, and where."""
    records = {name: r for evidence in found if evidence.plan.data == data for name, r in evidence.records.items()}
    return pd.DataFrame(
        [
            {
                "run": name,
                **{key: record["cost"][key] for key in ("train_seconds", "steps_per_second", "peak_memory_mb")},
                "threads": record["machine"]["threads"],
                "cpu": record["machine"]["cpu"],
                "torch": record["versions"]["torch"],
                "commit": (record["commit"] or "")[:8] + ("+" if record["dirty"] else ""),
                "finished": record["finished"],
            }
            for name, record in sorted(records.items())
        ]
    )

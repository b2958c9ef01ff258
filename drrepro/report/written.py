"""The text files of results/: tables and claims as a function of the evidence, and the evidence itself.

Beside the tables lie the plans, records and resampled AP behind them, so that anybody can make every table, claim and
interval again without running anything: see `drrepro.report.verify`.
"""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from drrepro.errors import UsageError
from drrepro.experiments.plan import read_plan
from drrepro.experiments.records import load_record
from drrepro.files import atomic_write, write_text
from drrepro.report.claims import RULE, Claim, as_json, claim_table
from drrepro.report.evidence import TABLES, Evidence, Floats
from drrepro.report.tables import Table, build_tables, display, flat, plain_table

Files = dict[str, str]  # text by path under results/


def table_files(found: list[Evidence]) -> Files:
    """Return the tables as csv, md and tex, grids as csv and md, and what each run took, under <data>/."""
    files: Files = {}
    for table in build_tables(found):
        files |= _table_files(table)
    for evidence in found:
        if evidence.plan.kind not in TABLES:
            files |= _plain_files(f"{evidence.plan.data}/{evidence.plan.name}", plain_table(evidence))
    for data in sorted({evidence.plan.data for evidence in found}):
        files |= _plain_files(f"{data}/runs", _run_table(found, data))
    return files


def claim_files(claims: list[Claim]) -> Files:
    """Return claims.json and claims.md."""
    markdown = claim_table(claims).to_markdown(index=False, disable_numparse=True)
    content = json.dumps(as_json(claims), indent=1, allow_nan=False)
    return {"claims.json": f"{content}\n", "claims.md": f"{markdown}\n\n{RULE}\n"}


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
        files = {f"plans/{evidence.plan.name}.json": json.dumps(asdict(evidence.plan), indent=1) + "\n"}
        files |= {f"records/{name}.json": json.dumps(record) + "\n" for name, record in evidence.records.items()}
        paths += write_files(files, folder)
        for name in evidence.records:
            if resampled := evidence.resampled.get(name):
                paths.append(_write_resampled(folder / "resampled" / f"{name}.npz", resampled))
    return sorted(set(paths))


def read_kept(results: Path) -> list[Evidence]:
    """Return the evidence that `keep` wrote. Raises UsageError where there is none, or a damaged file."""
    paths = sorted(results.glob("*/plans/*.json"))
    if not paths:
        raise UsageError(f"{results}: no results here with the plans and records behind them; `drrepro report tables`")
    found = []
    for path in paths:
        plan, folder = read_plan(path), path.parents[1]
        read = {cell.run_id: load_record(folder / "records" / f"{cell.run_id}.json") for cell in plan.cells}
        records = {name: record for name, record in read.items() if record is not None}
        resampled = {name: _read_resampled(folder / "resampled" / f"{name}.npz") for name in records}
        found.append(Evidence(plan, records, resampled))
    return found


def _write_resampled(path: Path, resampled: dict[float, Floats]) -> Path:
    thresholds, ap = np.array(list(resampled)), np.stack(list(resampled.values()))
    atomic_write(path, lambda file: np.savez_compressed(file, thresholds=thresholds, ap=ap))
    return path


def _read_resampled(path: Path) -> dict[float, Floats]:
    """Return AP of each resample, per cent, by score threshold; nothing where none was kept."""
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as kept:
            return dict(zip(kept["thresholds"].tolist(), kept["ap"], strict=True))
    except Exception as error:  # numpy raises whatever the damaged bytes make it raise
        raise UsageError(f"{path}: not readable ({error}); remove it to do without intervals of this run") from None


def _table_files(table: Table) -> Files:
    stem = f"{table.data}/table{table.number}"
    text = display(table.frame)
    note = "\n".join(["", *(f"- {finding}" for finding in table.findings)])
    markdown = text.to_markdown(index=False, disable_numparse=True)  # numparse would drop the zero of 35.0
    latex = text.to_latex(index=False, escape=True, caption=table.title, label=f"tab:{table.data}{table.number}")
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

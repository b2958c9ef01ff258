"""Let the site show results/ where the pages, read in the repository, link to it."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
LINK = "../../results/"


def on_files(files: Files, config: Any) -> Files:
    """Add the files of results/ that a page may link to."""
    for path in sorted((ROOT / "results").rglob("*")):
        if path.suffix in (".png", ".csv", ".html"):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point links to results/ at them; a table in markdown there is named, not linked."""
    return markdown.replace(f"]({LINK}", "](results/")

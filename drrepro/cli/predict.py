"""drrepro predict: a run's detector on any images."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drrepro.cli.lazy import lazily
from drrepro.cli.options import ConfigDir, Output

with lazily():
    from drrepro import config, console, errors
    from drrepro.detection import predict as library
    from drrepro.experiments import device
    from drrepro.models import checkpoints, retinanet
    from drrepro.runs import folder, records

if TYPE_CHECKING:
    from drrepro.schema import Config


def predict(
    out: Output,
    words: Annotated[
        list[str], typer.Argument(metavar="PATH... weights=RUN_ID", help="Images, folders of images, and the run.")
    ],
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Lowest score shown; default: the run's evaluation.score_threshold."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the drawings, a JPEG for each image.")] = Path("predictions"),
    config_dir: ConfigDir = None,
) -> None:
    """Draw what the detector of a run finds on images: boxes with class and score.

    Further key=value words override the run's evaluation, input and runtime keys.

    Exits with 1 if an image could not be read; the others are drawn.

    Example: drrepro predict photo.jpg holidays/ weights=digits-dr-128-s0-1a2b3c4d --threshold 0.4
    """
    overrides = [word for word in words if re.match(r"\w+(\.\w+)*=", word) and not Path(word).exists()]
    images = library.find_images([Path(word) for word in words if word not in overrides])
    trained, classes = _trained(overrides, threshold, config_dir)
    model = retinanet.build_detector(trained, len(classes), device.pick_device(trained.runtime.device))
    path = folder.weights_path(trained.weights, config.runs_folder())
    checkpoints.load_weights(model, trained, path, list(range(1, len(classes) + 1)))
    with console.progress(out.quiet) as report:
        found = library.predict(model, trained, classes, images, output, lambda i, n: report("predict", i, n, {}))
    for row in found.unreadable:
        typer.echo(f"error: {row['error']}", err=True)
    if out.as_json:
        settings = {"weights": trained.weights, "score_threshold": trained.evaluation.score_threshold}
        typer.echo(json.dumps({**settings, **asdict(found)}))
    elif not out.quiet:
        for image in found.images:
            typer.echo(f"{image['drawing']}  {len(image['detections'])} detections on {image['image']}")
    if found.unreadable:
        raise typer.Exit(1)


def _trained(overrides: list[str], threshold: float | None, config_dir: Path | None) -> "tuple[Config, list[str]]":
    """Return the configuration of the run that ``weights=`` names, with the overrides, and its classes."""
    given = []
    for word in overrides:
        name = word.removeprefix("weights=")
        bare = word != name and (config.runs_folder() / name).is_dir()
        given.append(f"weights=run:{name}" if bare else word)
    if threshold is not None:
        given.append(f"evaluation.score_threshold={threshold}")
    weights = config.compose(given, config_dir).weights
    if not weights.startswith("run:"):
        raise errors.UsageError("weights=RUN_ID is needed, the name of a folder in the runs folder")
    directory = config.runs_folder() / weights.removeprefix("run:")
    record = records.require_record(directory)
    trained = config.from_dict(record["config"], directory)
    return config.for_evaluation(trained, given, config_dir), record["data"]["classes"]

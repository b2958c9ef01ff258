"""drrepro predict: a run's detector on any images."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drrepro.cli.options import Debug, Json, Quiet

if TYPE_CHECKING:
    from drrepro.schema import Config


def predict(
    words: Annotated[
        list[str], typer.Argument(metavar="PATH... weights=RUN_ID", help="Images, folders of images, and the run.")
    ],
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Lowest score shown; default: the run's evaluation.score_threshold."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the drawings, a JPEG for each image.")] = Path("predictions"),
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Draw what the detector of a run finds on images: boxes with class and score.

    Further key=value words override the run's evaluation, input and runtime keys.

    Exits with 1 if an image could not be read; the others are drawn.

    Example: drrepro predict photo.jpg holidays/ weights=digits-dr-128-s0-1a2b3c4d --threshold 0.4
    """
    from drrepro import predict as library
    from drrepro.config import runs_folder
    from drrepro.console import progress
    from drrepro.experiments.run import pick_device
    from drrepro.models.checkpoints import load_weights
    from drrepro.models.retinanet import RetinaNet

    overrides = [word for word in words if re.match(r"\w+(\.\w+)*=", word) and not Path(word).exists()]
    images = library.find_images([Path(word) for word in words if word not in overrides])
    config, classes = _trained(overrides, threshold)
    model = RetinaNet(config.model, len(classes)).to(pick_device(config.runtime.device))
    load_weights(model, config, runs_folder(), list(range(1, len(classes) + 1)))
    with progress(quiet) as report:
        found = library.predict(model, config, classes, images, output, lambda i, n: report("predict", i, n, {}))
    for row in found.unreadable:
        typer.echo(f"error: {row['error']}", err=True)
    if as_json:
        settings = {"weights": config.weights, "score_threshold": config.evaluation.score_threshold}
        typer.echo(json.dumps({**settings, **asdict(found)}))
    elif not quiet:
        for image in found.images:
            typer.echo(f"{image['drawing']}  {len(image['detections'])} detections on {image['image']}")
    if found.unreadable:
        raise typer.Exit(1)


def _trained(overrides: list[str], threshold: float | None) -> "tuple[Config, list[str]]":
    """Return the configuration of the run that ``weights=`` names, with the overrides, and its classes."""
    from drrepro.config import compose, for_evaluation, from_dict, runs_folder
    from drrepro.errors import UsageError
    from drrepro.experiments.records import require_record

    given = []
    for word in overrides:
        name = word.removeprefix("weights=")
        bare = word != name and (runs_folder() / name).is_dir()
        given.append(f"weights=run:{name}" if bare else word)
    if threshold is not None:
        given.append(f"evaluation.score_threshold={threshold}")
    weights = compose(given).weights
    if not weights.startswith("run:"):
        raise UsageError("weights=RUN_ID is needed, the name of a folder in the runs folder")
    directory = runs_folder() / weights.removeprefix("run:")
    record = require_record(directory)
    return for_evaluation(from_dict(record["config"], directory), given), record["data"]["classes"]

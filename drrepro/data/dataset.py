"""What every reader returns: a data set with its classes, its images and their objects."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Sample:
    """One image and its N objects.

    ``boxes``: (N, 4) float64, x1 y1 x2 y2 in pixels of the file, continuous (x2 - x1 is the width).
    ``labels``: (N,) int64, 1..K. ``areas``: (N,) float64, px².
    ``ignore``: (N,) bool, COCO's crowd regions and VOC's difficult objects: not trained on, and at test
    time neither found nor missed.
    """

    id: int
    path: Path
    width: int
    height: int
    boxes: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    areas: npt.NDArray[np.float64]
    ignore: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Dataset:
    """K classes, their ids in the annotations (gaps allowed), and the images in a fixed order."""

    classes: list[str]
    category_ids: list[int]
    samples: list[Sample]
    dropped: list[str] = field(default_factory=list)  # one line for each degenerate box left out
    left_out: dict[str, str] = field(default_factory=dict)  # bad images by path, and what is wrong with each
    annotated: bool = True  # whether the objects are known; where not, every image seems empty
    sha256: str | None = None  # of an embedded set

    def ground_truth(self) -> dict[str, Any]:
        """Return the annotations as a COCO dictionary; ``ignore`` becomes ``iscrowd``.

        For VOC's difficult objects too: COCO's metrics know no other way to count an object neither found nor missed.
        They then measure overlap with it as the share of the detection that lies inside.
        """
        annotations: list[dict[str, Any]] = []
        for sample in self.samples:
            for box, label, area, ignore in zip(
                sample.boxes.tolist(),
                sample.labels.tolist(),
                sample.areas.tolist(),
                sample.ignore.tolist(),
                strict=True,
            ):
                x1, y1, x2, y2 = box
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": sample.id,
                        "category_id": self.category_ids[label - 1],
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": area,
                        "iscrowd": int(ignore),
                    }
                )
        return {
            "images": [
                {"id": s.id, "width": s.width, "height": s.height, "file_name": s.path.name} for s in self.samples
            ],
            "categories": [{"id": i, "name": n} for i, n in zip(self.category_ids, self.classes, strict=True)],
            "annotations": annotations,
        }

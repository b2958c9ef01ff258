import shutil

import pytest

from drrepro.data.letters import CLASSES
from drrepro.data.voc import find_classes, read_voc
from drrepro.errors import UsageError
from tests.conftest import shared


@pytest.fixture
def copy(data_folder, tmp_path):
    shutil.copytree(data_folder / "letters", tmp_path / "letters")
    return tmp_path / "letters"


def first_xml(folder):
    """The first test image that has an object."""
    names = (folder / "ImageSets" / "Main" / "test.txt").read_text().split()
    paths = [folder / "Annotations" / f"{name}.xml" for name in names]
    return next(path for path in paths if "<object>" in path.read_text())


def rewrite(folder, old, new):
    path = first_xml(folder)
    path.write_text(path.read_text().replace(old, new, 1))
    return read_voc(folder, "test", list(CLASSES))


def test_reads_boxes_as_continuous_pixels_and_difficult_as_ignored(copy):
    dataset = rewrite(copy, "<difficult>0</difficult>", "<difficult>1</difficult>")
    text = first_xml(copy).read_text()
    xmin, xmax = (int(text.split(f"<{key}>")[1].split("<")[0]) for key in ("xmin", "xmax"))
    sample = next(s for s in dataset.samples if s.path.stem == first_xml(copy).stem)
    assert sample.boxes[0, 0] == xmin - 1
    assert sample.boxes[0, 2] == xmax
    assert sample.ignore[0]
    assert dataset.ground_truth()["annotations"][0]["category_id"] == sample.labels[0]


def test_classes_are_found_by_themselves(copy):
    assert set(find_classes(copy, ["trainval", "test"])) <= set(CLASSES)


def test_bad_input_is_named(copy):
    with pytest.raises(UsageError, match=r"none\.txt: No such file"):
        read_voc(copy, "none", list(CLASSES))
    xml = first_xml(copy)
    with pytest.raises(UsageError, match=rf"{xml.name}: class '.' is not among data\.classes \(x\)"):
        read_voc(copy, "test", ["x"])
    with pytest.raises(UsageError, match=f"{xml.name}: malformed"):
        rewrite(copy, "<xmin>", "<xmin>one")
    xml.write_text("<annotation>")
    with pytest.raises(UsageError, match=f"{xml.name}: malformed"):
        read_voc(copy, "test", list(CLASSES))
    xml.unlink()
    with pytest.raises(UsageError, match=f"{xml.name}: No such file"):
        read_voc(copy, "test", list(CLASSES))


def test_blood_cells_with_their_two_degenerate_boxes():
    root = shared("bccd") / "BCCD"
    classes = find_classes(root, ["trainval", "test"])
    assert classes == ["Platelets", "RBC", "WBC"]
    train, test = read_voc(root, "trainval", classes), read_voc(root, "test", classes)
    assert (len(train.samples), len(test.samples)) == (292, 72)
    assert len(train.dropped) + len(test.dropped) == 2
    assert all("BloodImage_003" in line and "degenerate" in line for line in train.dropped + test.dropped)

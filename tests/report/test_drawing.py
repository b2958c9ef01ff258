import numpy as np
import pytest
from PIL import Image, ImageColor

from drrepro.report.drawing import PALETTE, colour, draw_detections

CLASSES = ["cat", "dog", "grüße, 猫"]


def pixels(image, rgb):
    return (np.asarray(image) == ImageColor.getrgb(rgb)).all(axis=2)


def test_a_box_is_drawn_where_it_is_in_the_colour_of_its_class():
    image = Image.new("RGB", (400, 400), "white")
    drawn = draw_detections(image, [[100, 150, 300, 350]], [2], [0.5], CLASSES)
    assert drawn.size == image.size
    rows, columns = np.nonzero(pixels(drawn, colour(2)))
    assert (columns.min(), rows.max()) == (100, 350)
    assert columns[rows == 250].max() == 300
    assert 120 < rows.min() < 150  # the label stands above
    assert not pixels(drawn, colour(1)).any()
    assert np.asarray(image).min() == 255  # the image itself is left alone


def test_a_small_image_is_enlarged_by_a_whole_factor_with_its_boxes():
    drawn = draw_detections(Image.new("L", (100, 80)), [[20, 30, 60, 70]], [1], None, CLASSES)
    assert (drawn.size, drawn.mode) == ((400, 320), "RGB")
    rows, columns = np.nonzero(pixels(drawn, colour(1)))
    assert (columns.min(), rows.max()) == (80, 280)


@pytest.mark.parametrize(("size", "drawn"), [((2000, 3), (2000, 3)), ((3, 900), (6, 1800)), ((1, 1), (320, 320))])
def test_no_image_grows_without_limit(size, drawn):
    assert draw_detections(Image.new("RGB", size), [[0, 0, 1, 1]], [1], [1.0], CLASSES).size == drawn


@pytest.mark.parametrize("box", [[0, 0, 30, 30], [370, 0, 400, 400], [0, 390, 400, 400], [-9, -9, 409, 409]])
def test_labels_stay_inside_the_image(box):
    image = Image.new("RGB", (400, 400), "white")
    wide = draw_detections(image, [box], [1], [0.25], ["an unusually long name of a class"])
    assert pixels(wide, colour(1)).sum() > 200 * 12  # the whole background of the label


def test_labels_of_one_place_do_not_hide_each_other():
    image, box = Image.new("RGB", (400, 400), "white"), [100, 100, 300, 300]
    one = pixels(draw_detections(image, [box], [1], [0.9], CLASSES), colour(1)).sum()
    both = draw_detections(image, [box, box], [1, 2], [0.9, 0.8], CLASSES)
    assert pixels(both, colour(1)).sum() >= one - 4 * 200  # of the first only lines, if anything, are covered
    assert pixels(both, colour(2)).sum() > 500


def test_the_better_detection_lies_on_top():
    image, box = Image.new("RGB", (400, 400), "white"), [100, 100, 300, 300]
    drawn = draw_detections(image, [box, box], [1, 2], [0.3, 0.8], CLASSES)
    assert drawn.getpixel((100, 200)) == ImageColor.getrgb(colour(2))
    drawn = draw_detections(image, [box, box], [1, 2], [0.8, 0.3], CLASSES)
    assert drawn.getpixel((100, 200)) == ImageColor.getrgb(colour(1))


def test_nothing_found_leaves_the_image_as_it_is():
    image = Image.effect_noise((400, 400), 50).convert("RGB")
    drawn = draw_detections(image, np.zeros((0, 4)), [], [], CLASSES)
    assert np.array_equal(np.asarray(drawn), np.asarray(image))


def test_the_text_shows_class_and_score():
    image, box = Image.new("RGB", (400, 400), "white"), [50, 100, 300, 300]
    drawings = [
        draw_detections(image, [box], [label], scores, CLASSES)
        for label, scores in ((1, [0.9]), (1, [0.8]), (1, None), (3, None))
    ]
    assert len({drawn.tobytes() for drawn in drawings}) == 4


def test_colours_come_again_after_the_last():
    assert [colour(label) for label in range(1, 9)] == [*PALETTE, PALETTE[0]]
    assert len({ImageColor.getrgb(c) for c in PALETTE}) == len(PALETTE)

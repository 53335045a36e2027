"""Pictures of masks say of each weight which masks keep it."""

import matplotlib
import numpy as np
import pytest

from modmask import pictures
from shared import runs
from shared.errors import UsageError

RED, GREEN, BLUE = np.eye(3, dtype=np.float32)


def test_two_masks_are_red_and_green_with_blue_overlap():
    first = np.array([[True, True, False, False]])
    second = np.array([[True, False, True, False]])
    image = pictures.mask_image([first, second])
    assert (image.shape, image.dtype) == ((3, 1, 4), np.float32)
    np.testing.assert_array_equal(image[:, 0].T, [BLUE, RED, GREEN, 0 * RED])
    np.testing.assert_array_equal(pictures.mask_image([second])[:, 0, 2], RED)


def test_presence_is_grey_only_where_no_mask_is():
    mask = np.array([True, False, False])
    image = pictures.mask_image([mask], np.array([True, True, False]))
    assert image.shape == (3, 1, 3)
    np.testing.assert_allclose(image[:, 0].T, [RED, [0.2] * 3, [0] * 3], rtol=1e-6)


@pytest.mark.parametrize(("count", "name"), [(3, "Set1"), (8, "Set1"), (11, "tab20")])
def test_more_masks_take_the_colours_of_a_map_after_that_of_the_overlap(count, name):
    masks = np.eye(count + 1, dtype=bool)[1:]
    masks[:, 0] = True
    image = pictures.mask_image(masks)
    expected = np.array(matplotlib.colormaps[name].colors)[: count + 1]
    np.testing.assert_allclose(image[:, 0].T, expected, atol=1e-6)


@pytest.mark.parametrize("count", range(1, 20))
def test_no_two_masks_share_a_colour(count):
    palette = pictures.colours(count)
    assert len(np.unique(palette, axis=0)) == count + 1


def test_a_kernel_lies_as_its_inputs_by_its_outputs():
    kernel = np.zeros((2, 3), bool)
    kernel[1, 2] = True
    assert pictures.mask_image([kernel])[0].nonzero() == ([1], [2])


def test_filters_are_rows_of_inputs_then_places_by_outputs():
    height, width, inputs, outputs = 2, 3, 4, 5
    filters = np.zeros((height, width, inputs, outputs), bool)
    filters[1, 2, 3, 4] = filters[0, 1, 2, 0] = True
    image = pictures.mask_image([filters])[0]
    assert image.shape == (inputs * height * width, outputs)
    rows, columns = image.nonzero()
    assert list(zip(rows, columns, strict=True)) == [(2 * 6 + 1, 0), (23, 4)]


def test_numbers_serve_as_masks_where_they_are_not_zero():
    samples = np.array([0.0, 1.0, -1.0])
    np.testing.assert_array_equal(pictures.mask_image([samples])[0, 0], [0, 1, 1])


@pytest.mark.parametrize(
    ("masks", "presence"),
    [
        ([], None),
        ([np.ones(3)] * 20, None),
        ([np.ones(3), np.ones(4)], None),
        ([np.ones(3)], np.ones(4)),
        ([np.ones((2, 2, 2))], None),
    ],
)
def test_masks_that_make_no_picture(masks, presence):
    with pytest.raises(UsageError, match="masks"):
        pictures.mask_image(masks, presence)


def test_networks_are_drawn_by_parameter():
    masks = {"w": np.ones((2, 3)), "b": np.zeros(3)}
    images = pictures.mask_images([masks, masks], {"b": np.ones(3)})
    assert {name: image.shape for name, image in images.items()} == {
        "w": (3, 2, 3),
        "b": (3, 1, 3),
    }
    np.testing.assert_array_equal(images["w"][:, 0, 0], BLUE)
    assert images["b"].max() == np.float32(0.2)


def test_probabilities_of_all_weights():
    logits = {"w": np.array([[0.0, 2.0]]), "b": np.array([-1e4, -5.0])}
    kept = pictures.probabilities(logits)
    expected = [0.5, 1 / (1 + np.exp(-2)), 0, 1 / (1 + np.exp(5))]
    np.testing.assert_allclose(kept, expected, rtol=1e-9, atol=1e-12)
    found = pictures.histograms(logits)
    np.testing.assert_array_equal(found["mask_histogram"], kept)
    np.testing.assert_array_equal(found["mask_histogram_nonzero"], kept[:2])


def test_the_overview_has_a_panel_per_parameter_and_the_histogram():
    logits = {"w": np.array([[1.0, -1.0], [-1.0, -1.0]]), "b": np.ones(3)}
    *masks, histogram = pictures.overview(logits).axes
    assert [axis.get_title() for axis in masks] == ["w\n25.0 % kept", "b\n100.0 % kept"]
    np.testing.assert_array_equal(
        np.asarray(masks[0].images[0].get_array())[:, :, 0], [[1, 0], [0, 0]]
    )
    assert sum(bar.get_height() for bar in histogram.patches) == 7


def test_a_mask_in_training_goes_to_the_sinks_and_to_the_run(tmp_path, monkeypatch):
    run = runs.create(tmp_path, "modmask", "test", {}, {}, members=[{}, {}])
    shown = []
    note = lambda *call: shown.append((call[1], call[0], call[3], call[2].shape))
    monkeypatch.setattr(run, "picture", note)
    monkeypatch.setattr(run, "histogram", note)
    with run:
        pictures.show(run, 7, "add", 1, {"w": np.array([[1.0, -9.0]])}, member=1)
    assert shown == [
        ("analyzer/add/masks/w", 7, 1, (3, 1, 2)),
        ("mask_histogram/1", 7, 1, (2,)),
        ("mask_histogram_nonzero/1", 7, 1, (1,)),
    ]
    assert (run.members[1] / "figures" / "mask_add.png").exists()

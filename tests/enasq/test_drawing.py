"""Cells as graphs."""

import re

import numpy as np
import pytest

from enasq import cell, drawing

ARC = cell.parse(
    "0 1 0 1 2 0 1 1 3 4 3 1 4 4 1 1 5 1 1 1 0 0 0 1 2 3 1 0 2 0 2 2 3 0 1 4 2 2 5 4"
)


@pytest.mark.parametrize("half", (0, 1))
def test_arrows_are_the_edges_of_the_cell(half):
    code = ARC[half]
    arrows = drawing.arrows(code)
    into = dict((target, source) for source, target in arrows if "op" in target)
    for source, target, branch, _ in cell.edges(code).tolist():
        assert into[f"op {target} {branch}"] == f"node {source}"
        assert (f"op {target} {branch}", f"node {target}") in arrows
    loose = np.nonzero(cell.loose_ends(code))[0]
    assert [s for s, t in arrows if t == "concat"] == [f"node {n}" for n in loose]


def test_boxes_do_not_overlap_and_stand_below_what_they_read():
    for code in ARC:
        places = drawing.layout(code)
        assert set(places) == {box.name for box in drawing.boxes(code)}
        for source, target in drawing.arrows(code):
            assert places[source][1] > places[target][1]
        points = np.array([p for name, p in places.items() if name != "concat"])
        gaps = np.abs(points[:, None] - points[None])
        apart = (gaps[..., 0] >= 1.14) | (gaps[..., 1] >= 0.4)
        assert apart[~np.eye(len(points), dtype=bool)].all()


def test_dot_text_names_every_box_and_arrow():
    text = drawing.dot(ARC[0], name="ncell")
    assert text.count("subgraph") == 5 and text.count("{") == text.count("}")
    found = set(re.findall(r'"([^"]+)" -> "([^"]+)"', text))
    assert found == set(drawing.arrows(ARC[0]))
    assert text.count('label="conv 5x5"') == np.sum(ARC[0][:, 1::2] == cell.CONV_5)


def test_pictures_are_written(tmp_path):
    arc = ARC.copy()
    arc[0, 0, 1] = cell.CONV_3 + 5
    written = drawing.save(arc, tmp_path, choices=("binary", "ternary"))
    assert [path.name for path in written] == ["cells.png", "ncell.dot", "rcell.dot"]
    assert written[0].stat().st_size > 10_000
    assert "conv 3x3\\nternary" in written[1].read_text()

from userspace_proxy.status.sparkline import HEIGHT, draw

NOTHING = [0.0, 0.0, 0.0, 0.0]


def test_each_figure_is_scaled_to_its_maximum():
    drawn = draw([0, 1, 2, 0], [0, 0, 0, 9e9], NOTHING)
    assert drawn.line == "M0 17L2 10L4 2L6 17"
    assert drawn.area == f"M0 {HEIGHT}L0 17L4 17L6 2L6 {HEIGHT}z"


def test_points_on_a_flat_line_are_left_out():
    assert draw([1.0] * 60, [0.0] * 60, [0.0] * 60).line == "M0 2L118 2"


def test_nothing_is_drawn_of_nothing():
    drawn = draw(NOTHING, NOTHING, NOTHING)
    assert (drawn.line, drawn.area, drawn.marks) == ("", "", "")


def test_seconds_with_failures_are_marked():
    assert draw(NOTHING, NOTHING, [0, 3, 0, 0.1]).marks == "M2 13v5M6 13v5"


def test_figures_that_are_no_numbers_draw_nothing():
    assert draw([float("nan")] * 4, NOTHING, NOTHING).line == ""

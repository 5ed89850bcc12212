"""Votes, worked by hand."""

from rlcore.credit.votes import most_frequent, two_level


def test_the_most_frequent_and_of_those_level_the_first():
    assert most_frequent(["a", "b", None, "b", "c"], 2) == ["b", "a"]
    assert most_frequent(["c", "a", "a", "c"]) == ["c"]
    assert most_frequent([None, None]) == []


def test_one_loud_view_does_not_outvote_the_others():
    """x has 5 of 9 samples, all in one view; a has 3, one in each. a is held by three views, x by one."""
    views = [["x"] * 5 + ["a"], ["a", "b"], ["a", "c"]]
    assert two_level(views, top=1) == ["a"]
    assert most_frequent([answer for view in views for answer in view]) == ["x"]


def test_a_view_passes_on_only_its_most_frequent():
    """b comes in both views, but in the second it is the fourth: of three that are passed on it is none."""
    views = [["a", "b"], ["c", "c", "d", "d", "a", "a", "b"]]
    assert two_level(views, within=3, top=4) == ["a", "b", "c", "d"]
    assert two_level(views, within=1, top=4) == ["a", "c"]


def test_of_those_level_the_problem_as_it_is_decides_then_the_samples():
    """u, v and w are each held by one view. u is the first view's; w has more samples than v."""
    assert two_level([["u"], ["v"], ["w", "w"]], top=3) == ["u", "w", "v"]
    assert two_level([[None], [None]]) == []

"""The KL controller by hand, and where it leads."""

import pytest

from rlcore.credit import adapted_kl


def test_one_step_by_hand():
    found = adapted_kl(
        [0.1, 0.1, 0.1, 0.1, 0.1], [0.1] * 5, [0.02, 0.02, 0.02, 0.0, 0.02], [0.022, 1.0, 0.0, 9.0, None]
    )
    assert found == pytest.approx([0.105, 0.11, 0.09, 0.1, 0.1])


def test_beta_stays_within_a_factor_of_ten_of_the_recipes():
    for measured, bound in ((1.0, 2.0), (0.0, 0.02)):
        beta = [0.2]
        for _ in range(100):
            beta = adapted_kl(beta, [0.2], [0.1], [measured])
        assert beta == pytest.approx([bound])


@pytest.mark.parametrize("measured", [float("nan"), float("inf")])
def test_beta_stays_where_the_kl_of_a_step_is_not_finite(measured):
    assert adapted_kl([0.1, 0.1], [0.1] * 2, [0.02] * 2, [measured, 0.0]) == pytest.approx([0.1, 0.09])


def test_the_target_is_held_where_kl_falls_as_beta_rises():
    beta = [0.01]
    for _ in range(60):
        beta = adapted_kl(beta, [0.01], [0.05], [0.002 / beta[0]])
    assert 0.002 / beta[0] == pytest.approx(0.05, rel=0.02)

"""What tests of code rewards share."""

import pytest

from rewards.code import Judge


@pytest.fixture(scope="module")
def judge():
    """A judge with the isolation that this machine has."""
    judge = Judge()
    yield judge
    judge.close()

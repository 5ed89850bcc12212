"""Every example of the page "Adding your own" trains, from a user's folder, and changes what the run does."""

import re
from pathlib import Path

import pytest

from rlcore.cli import main
from rlcore.recipe import load_recipe
from tests.tiny import figures, write_recipe

PAGE = (Path(__file__).resolve().parents[1] / "rlcore/ADDING.md").read_text()
EXAMPLES = re.findall(r"```python\n# (my_\w+)\.py\n(.*?)```\s+```yaml\n(.*?)```", PAGE, re.DOTALL)
STAGES = [{"name": "one", "steps": 2, "reward": [1, 1], "kl": [0.1, 0.1]}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A user's folder with the examples' files, and the run of a recipe without any of them."""
    folder = tmp_path_factory.mktemp("mine")
    for name, code, settings in EXAMPLES:
        (folder / f"{name}.py").write_text(code)
        (folder / f"{name}.yaml").write_text(f"extends: recipe.yaml\n{settings}")
    main(["train", str(write_recipe(folder, stages=STAGES, evaluate=None)), f"output={folder / 'plain'}"])
    return folder


def test_the_page_has_one_of_each():
    assert len(EXAMPLES) == 7


@pytest.mark.parametrize("name", [name for name, _, _ in EXAMPLES])
def test_an_example_of_the_page_trains_and_differs_from_the_run_without_it(name, folder):
    main(["train", str(folder / f"{name}.yaml"), f"output={folder / name}"])
    mine, plain = figures(folder / name), figures(folder / "plain")
    assert len(mine) == len(plain) == 2
    assert mine != plain


def test_what_a_loss_brings_yields_to_what_stands_beside_it(folder):
    learner = load_recipe(folder / "my_loss.yaml", ["learner.clip=[0.1, 0.3]"]).learner
    assert (learner.surrogate, learner.average, learner.clip) == (learner.loss, "attempt", (0.1, 0.3))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("conversation.kind=critic", "conversation.kind: no kind of conversation named 'critic'; known: critique, "),
        ("rollout.engine=vlm", "rollout.engine: no engine named 'vlm'; known: vllm, torch"),
        ("credit.baseline=batch_outcom", "credit.baseline: no baseline named 'batch_outcom'; known: batch_outcome, "),
        ("data.source=missing.py:MINE", "data.source: source 'missing.py:MINE': no file missing.py"),
        ("learner.kl=rlcore.no_such:kl", "learner.kl: KL estimator 'rlcore.no_such:kl': ModuleNotFoundError"),
        ("learner.loss=rlcore.credit.baselines:GROUP", "is a Baseline, not a Loss"),
    ],
)
def test_a_name_that_leads_nowhere_is_one_line(override, said, folder, capsys):
    with pytest.raises(SystemExit) as end:
        main(["recipe", "show", str(folder / "recipe.yaml"), override])
    line = capsys.readouterr().err
    assert end.value.code == 2
    assert said in line
    assert line.count("\n") == 1

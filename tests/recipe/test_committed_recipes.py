"""Every recipe in recipes/ loads, and says what its header promises."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

from rlcore.credit.advantages import advantages
from rlcore.credit.returns import turn_returns
from rlcore.credit.turns import Turns
from rlcore.data import load_problems
from rlcore.data.sources import mbpp
from rlcore.plan.cluster import Cluster
from rlcore.plan.lengths import assumed_lengths
from rlcore.plan.memory import learner_ranks, memory_parts, peak
from rlcore.plan.rates import estimated_rates
from rlcore.plan.shapes import model_shapes
from rlcore.plan.simulation import simulate
from rlcore.policy import load_policy, stop_ids
from rlcore.recipe import batch_arithmetic, load_recipe, load_section
from rlcore.rollout import Conversation
from rlcore.sft import WarmStart

GIB = 2**30
RECIPES = Path(__file__).parents[2] / "recipes"
WARM_STARTS = {RECIPES / "quickstart_base.yaml"}
SHARED = {path for folder in ("shared", "clusters") for path in (RECIPES / folder).glob("*.yaml")}
FOR_GPUS = sorted(path for path in {*RECIPES.rglob("*.yaml")} - SHARED if "# GPUs" in path.read_text())
FOR_CPUS = sorted((RECIPES / "small").glob("*.yaml"))
QUICKSTART = [RECIPES / "quickstart.yaml", *sorted((RECIPES / "quickstart").glob("*.yaml"))]


@pytest.mark.parametrize("path", sorted({*RECIPES.rglob("*.yaml")} - WARM_STARTS - SHARED), ids=lambda path: path.stem)
def test_a_recipe_loads(path):
    recipe = load_recipe(path)
    assert len(batch_arithmetic(recipe)) == 5 + sum(stage.base_first > 0 for stage in recipe.stages)


@pytest.mark.parametrize("path", sorted(WARM_STARTS), ids=lambda path: path.stem)
def test_a_warm_start_loads(path):
    assert load_section(WarmStart, path).phases


def test_gsm8k_tiny():
    recipe = load_recipe(RECIPES / "gsm8k_tiny.yaml", ["data.path=train.jsonl", "evaluate.data.path=test.jsonl"])
    assert (recipe.data.path, recipe.evaluate.data.path) == ("train.jsonl", "test.jsonl")
    assert recipe.data.prompt == recipe.evaluate.data.prompt
    for ranks, share in ((1, "1 rank: 32 trajectories each"), (2, "2 ranks: 16 trajectories each")):
        lines = batch_arithmetic(recipe, ranks)
        assert lines[0].startswith("8 problems x 4 trajectories = 32 trajectories a step")
        assert lines[2].startswith(share)
        assert lines[3].startswith("stage_1 2 + stage_2 2 = 4 steps")


def _header(path: Path) -> dict[str, str]:
    """The labelled lines of a recipe's header."""
    return dict(re.findall(r"^# (model|data|GPUs|memory|hours|run) +(.+)$", path.read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", FOR_GPUS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_recipe_for_gpus_fits_its_stated_cluster_and_says_how_it_is_run(path):
    assert len(path.read_text().splitlines()) < 40
    header = _header(path)
    assert set(header) == {"model", "data", "GPUs", "hours", "run"}
    recipe = load_recipe(path)
    assert str(recipe.model.path) in header["model"]
    gpus = int(re.match(r"(\d+) x", header["GPUs"])[1])
    learn = re.search(r"(\d+) learn, (\d+) sample", header["GPUs"])
    ranks, samplers = (int(learn[1]), int(learn[2])) if learn else (gpus, 0)
    assert ranks + samplers == gpus
    assert samplers == len(recipe.rollout.servers) * recipe.rollout.vllm.tensor_parallel
    assert batch_arithmetic(recipe, ranks)[2].startswith(f"{ranks} rank")
    assert ranks == math.prod(int(n) for n in re.findall(r"--n(?:nodes|proc-per-node) (\d+)", header["run"]))
    named = re.search(r"recipes/[\w./]+", path.read_text().partition("# run")[2])[0]
    assert (
        path.is_relative_to(RECIPES.parent / named.removesuffix(".yaml"))
        or path == RECIPES.parent / named
        or (path == RECIPES.parent / f"{named}.yaml")
    )


@pytest.mark.parametrize("path", FOR_GPUS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_recipe_for_gpus_fits_in_their_memory_and_takes_the_hours_it_says(path):
    header, recipe = _header(path), load_recipe(path)
    learn = re.search(r"(\d+) learn", header["GPUs"]) or re.match(r"(\d+) x", header["GPUs"])
    cluster, sizes = Cluster(gpus=int(learn[1])), model_shapes(recipe.model)
    assert f"x {cluster.memory_gib:g} GB" in header["GPUs"]
    parts = memory_parts(recipe, sizes, cluster.gpus, int(cluster.memory_gib * GIB))
    assert peak(parts) / GIB < cluster.memory_gib - cluster.reserved_gib
    if recipe.stages:
        lengths = assumed_lengths(recipe, None, None, 0.8)
        learners, samplers = learner_ranks(recipe, cluster.gpus)
        rates = estimated_rates(recipe, sizes, cluster, lengths)
        step = simulate(recipe, lengths, rates, learners=learners, samplers=samplers).step
        assert int(re.search(r"\d+", header["hours"])[0]) == pytest.approx(step * recipe.steps / 3600, rel=0.3)


@pytest.mark.parametrize("path", FOR_CPUS, ids=lambda path: path.stem)
def test_a_small_recipe_fits_in_the_memory_it_states(path):
    header, recipe = _header(path), load_recipe(path)
    assert set(header) == {"model", "data", "memory", "run"}
    assert str(recipe.model.path) in header["model"]
    assert str(path.relative_to(RECIPES.parent)) in header["run"]
    stated = int(header["memory"].split(" GB")[0]) * GIB
    place = Path(str(recipe.model.path))
    trained = place.parts[0] == "runs"  # by another recipe
    made_by = path.with_name(f"{place.parent.name}.yaml") if trained else path
    shapes = model_shapes(load_recipe(made_by).model)
    assert peak(memory_parts(recipe, shapes, 1, stated)) < stated


@pytest.mark.parametrize(
    ("path", "lr", "steps", "trajectories", "kl_1"),
    [("paper/math.yaml", 5e-6, 3000, 512, 0.1), ("paper/code.yaml", 1e-5, 1500, 128, 0.25)],
)
def test_the_papers_score_has_the_published_settings(path, lr, steps, trajectories, kl_1):
    recipe = load_recipe(RECIPES / path)
    stage_1, stage_2 = recipe.stages
    assert (stage_1.reward, stage_1.bonus, stage_1.kl) == ([0, 1], 0, [kl_1, 0.01])
    assert (stage_2.reward, stage_2.bonus, stage_2.kl) == ([1, 1], 10, [0.01, 0.01])
    assert (recipe.learner.lr, recipe.steps, recipe.batch.problems * recipe.batch.group) == (lr, steps, trajectories)
    assert recipe.rollout.temperature == 1
    learner = recipe.learner
    assert (learner.loss, learner.surrogate, learner.kl) == ("reinforce", "reinforce", "exact")
    assert learner.optimizer_steps == 1
    assert (recipe.credit.baseline, recipe.credit.discount, recipe.credit.scale) == ("leave_one_out", 0, "none")
    assert recipe.checkpoint.final == "best"
    assert recipe.data.system == recipe.evaluate.data.system


def test_the_worked_tasks_of_mbpp_pass_their_tests_and_are_not_trained_on():
    recipe = load_recipe(RECIPES / "paper/code.yaml")
    *worked, asked = recipe.data.prompt.split("\n\n")
    assert (len(worked), asked) == (3, "{prompt}")
    for task in worked:
        question, program = task.removesuffix("```").split("```python\n")
        assertions = [line for line in question.splitlines() if line.startswith("assert ")]
        assert len(assertions) == 3
        exec("\n".join([program, *assertions]), {})
    trained = {task for split in recipe.data.split.split("+") for task in mbpp.SPLITS[split]}
    assert not trained & {2, 3, 4}


@pytest.mark.parametrize("task", ["paper/math", "paper/code", "quickstart"])
def test_every_baseline_of_the_paper_is_there_and_starts_from_the_same_policy(task):
    folder = RECIPES / task / ("ablations" if task == "quickstart" else "")
    arms = {path.stem: load_recipe(path) for path in folder.glob("*.yaml")}
    plain = load_recipe(RECIPES / task / "plain.yaml")
    assert {*arms, "plain"} - {"plain_gamma1", "weight_only", "discounted"} == {
        "plain", "single_turn", "self_refine", "star", "star_plus", "pair_sft", "pair_sft_plus",
        "no_stage_1", "no_bonus", "star_stage_2", "base_first",
    }  # fmt: skip
    score = load_recipe(RECIPES / f"{task}.yaml")
    assert {name for name, recipe in arms.items() if recipe.name != name} == set()
    for recipe in (plain, *arms.values()):
        assert (recipe.model, recipe.data, recipe.rewards) == (score.model, score.data, score.rewards)
        assert recipe.evaluate.data == score.evaluate.data
        assert recipe.held_out_conversation.attempts == 2
        assert recipe.steps in (0, score.steps)
    assert [name for name, recipe in arms.items() if recipe.sft] == [
        name for name in arms if name.startswith(("star", "pair"))
    ]
    first = load_recipe(arms["star_stage_2"].after)
    assert first.stages == score.stages[:1]


@pytest.mark.parametrize("task", ["quickstart", "few_problems"])
def test_the_arms_of_a_small_task_differ_in_their_stages_alone(task):
    recipes = [load_recipe(path) for path in (RECIPES / f"{task}.yaml", *sorted((RECIPES / task).glob("*.yaml")))]
    assert len({recipe.name for recipe in recipes}) == len(recipes) > 1
    assert len({recipe.steps * recipe.batch.problems * recipe.batch.group for recipe in recipes}) == 1
    shared = [recipe.model_dump(exclude={"name", "output", "stages"}) for recipe in recipes]
    assert all(other == shared[0] for other in shared)


def test_few_problems_are_the_quickstart_with_fewer():
    arms = [
        (path, next((RECIPES / "quickstart").rglob(path.name))) for path in (RECIPES / "few_problems").rglob("*.yaml")
    ]
    for few, many in (map(load_recipe, pair) for pair in [*arms, (RECIPES / "few_problems.yaml", QUICKSTART[0])]):
        apart = {"output", "data", "sft"}
        assert few.model_dump(exclude=apart) == many.model_dump(exclude=apart)
        assert not few.steps or few.data.options["count"] * 40 == few.steps * few.batch.problems
        if few.sft:
            sampled = [arm.sft.problems * arm.sft.samples * arm.sft.rounds for arm in (few, many)]
            assert sampled[0] == pytest.approx(sampled[1], rel=0.01)


def test_weight_only_has_half_of_the_rewards_that_score_has():
    score, weight_only = (load_recipe(RECIPES / f"quickstart{arm}.yaml") for arm in ("", "/ablations/weight_only"))
    (first, second), (same, scaled) = score.stages, weight_only.stages
    turns = Turns.of_attempts(np.random.default_rng(0).integers(0, 2, (8, 8, 2)))
    assert same == first
    assert [2 * beta for beta in scaled.kl] == second.kl
    ours, theirs = (
        advantages(turn_returns(turns, stage), turns, score.credit) * factor
        for stage, factor in ((second, 1), (scaled, 2))
    )
    np.testing.assert_allclose(ours, theirs)
    assert np.abs(ours[..., 1]).max() > 0.5


def test_the_quickstart_trains_on_none_of_its_held_out_problems():
    recipe = load_recipe(QUICKSTART[0])
    texts = [{p.messages[0]["content"] for p in load_problems(data)} for data in (recipe.data, recipe.evaluate.data)]
    assert len(texts[0]) > 10_000
    assert not texts[0] & texts[1]
    assert len(texts[1]) >= 2000


def test_the_quickstart_template_is_proven_exact():
    recipe = load_recipe(QUICKSTART[0])
    policy = load_policy(recipe.model)
    conversation = Conversation(policy.tokenizer, recipe.conversation, stop_ids(policy))
    problem = load_problems(recipe.data)[0]
    answer = policy.tokenizer(" b and c: 8 + 5 = 13", add_special_tokens=False)["input_ids"]
    messages = [
        *problem.messages,
        {"role": "assistant", "content": "b and c: 8 + 5 = 13"},
        {"role": "user", "content": recipe.conversation.instruction},
    ]
    rendered = policy.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    appended = [*conversation.open(problem), *answer, policy.tokenizer.eos_token_id, *conversation.follow("stop")]
    assert policy.tokenizer(rendered, add_special_tokens=False)["input_ids"] == appended
    assert policy.tokenizer.unk_token_id not in appended

"""The simulation against times worked out by hand, and a run whose measurements it must give back."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from rlcore.errors import UserError
from rlcore.plan.cluster import Cluster
from rlcore.plan.command import calibrated
from rlcore.plan.lengths import INSTRUCTION_TOKENS, Lengths
from rlcore.plan.memory import learner_ranks
from rlcore.plan.rates import Rates, estimated_rates, measured_run
from rlcore.plan.samplers import Sampler
from rlcore.plan.shapes import model_shapes
from rlcore.plan.simulation import simulate
from rlcore.recipe import load_recipe

RATES = Rates(decode_step=1.0, decode_row=0.1, prompt_token=0.01, learner_token=0.002, optimizer_step=3.0, publish=2.0)
LENGTHS = Lengths(prompt=100, response=40, limit=200, replies=2)


def rollout_seconds(lengths_CR, prompt, group, slots, rates, *, barrier=False):
    """Seconds until one sampler has all replies of its conversations."""
    sampler = Sampler(prompt, group, slots, rates, barrier=barrier)
    sampler.add(0, lengths_CR)
    return sampler.finish(0)


def test_two_conversations_by_hand():
    lengths_CR = np.array([[10, 5], [4, 2]])
    # Both prompts; 4 steps of two rows; the second's instruction; 2 steps of two; 4 of one; instruction; 5 of one.
    expected = 2 * 100 * 0.01 + (4 + 2) * 1.2 + 2 * INSTRUCTION_TOKENS * 0.01 + (4 + 5) * 1.1
    assert rollout_seconds(lengths_CR, 100, 1, 8, RATES) == pytest.approx(expected)
    waited = 2 * 100 * 0.01 + 4 * 1.2 + 6 * 1.1 + 2 * INSTRUCTION_TOKENS * 0.01 + 2 * 1.2 + 3 * 1.1
    assert rollout_seconds(lengths_CR, 100, 1, 8, RATES, barrier=True) == pytest.approx(waited)


def test_one_slot_takes_conversations_one_after_the_other():
    expected = 2 * (100 + INSTRUCTION_TOKENS) * 0.01 + 21 * 1.1
    assert rollout_seconds(np.array([[10, 5], [4, 2]]), 100, 1, 1, RATES) == pytest.approx(expected)


def test_starting_at_once_is_faster_where_slots_are_full(repository):
    recipe = load_recipe(repository / "recipes" / "quickstart.yaml", ["rollout.slots=16"])
    at_once, waited = (simulate(recipe, LENGTHS, RATES, learners=2, samplers=2, barrier=b) for b in (False, True))
    assert at_once.sampling < waited.sampling
    assert at_once.sampled == waited.sampled


def test_phases_add_up_and_more_samplers_wait_longer(repository):
    recipe = load_recipe(repository / "recipes" / "quickstart.yaml")
    one, many = (simulate(recipe, LENGTHS, RATES, learners=n, samplers=n) for n in (1, 256))
    assert one.step == pytest.approx(one.sampling + one.learning + one.publishing)
    assert one.learning == pytest.approx(one.trained * 0.002 + 3)
    assert one.waiting == pytest.approx(0)
    assert many.waiting > 0.2
    assert many.sampling < one.sampling


SERVERS = ["rollout.engine=vllm", "rollout.mode=servers", "rollout.start_servers=4"]


def test_what_is_sampled_ahead_overlaps_with_learning_up_to_the_slower_of_both(repository):
    recipe = load_recipe(repository / "recipes" / "quickstart.yaml", SERVERS)
    runs = [simulate(recipe, LENGTHS, RATES, learners=4, samplers=4, ahead=ahead, steps=12) for ahead in (0, 1, 2, 4)]
    none, *others = runs
    assert none.lag == 0
    assert none.learners_busy == pytest.approx(none.learning / none.step)
    assert all(run.step < 0.9 * none.step for run in others)
    for ahead, run in zip((1, 2, 4), others, strict=True):
        assert run.step >= run.learning + run.publishing
        assert run.samplers_busy <= 1
        assert 0 < run.lag <= ahead
    in_process = load_recipe(repository / "recipes" / "quickstart.yaml")
    taking_turns = [simulate(in_process, LENGTHS, RATES, learners=4, samplers=4, ahead=ahead) for ahead in (0, 2)]
    assert taking_turns[0] == taking_turns[1], "the same GPUs cannot do both"


def test_one_conversation_a_step_by_hand():
    """Replies of 30 s, learning of 10 s, publications of 2 s: what is begun after version n - K holds up step n."""
    rates = Rates(1.0, 0.0, 0.0, 0.0, 10.0, 2.0)
    lengths = SimpleNamespace(prompt=0, replies=1, draw=lambda count, rng: np.full((count, 1), 30))
    recipe = SimpleNamespace(
        batch=SimpleNamespace(problems=1, group=1),
        rollout=SimpleNamespace(mode="servers", slots=9),
        learner=SimpleNamespace(sequence_parallel=1, epochs=1, optimizer_steps=1),
    )
    found = [simulate(recipe, lengths, rates, learners=1, samplers=1, ahead=ahead, steps=12) for ahead in (0, 1, 4)]
    # Two conversations in turn, each held up by the other's publication; with four ahead none holds up the learner.
    assert [run.step for run in found] == pytest.approx([30 + 12, (30 + 2 + 12) / 2, 12], rel=0.1)
    assert found[2].learners_busy == pytest.approx(10 / 12)


def test_lengths_have_the_mean_and_a_long_tail():
    drawn = dataclasses.replace(LENGTHS, limit=10_000).draw(20_000, np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(40, rel=0.02)
    assert drawn.std() / drawn.mean() == pytest.approx(0.8, rel=0.05)
    assert LENGTHS.draw(20_000, np.random.default_rng(0)).max() == 200


def test_a_calibrated_simulation_takes_as_long_as_the_run(tmp_path, repository):
    recipe = load_recipe(repository / "recipes" / "quickstart.yaml")
    steps = [
        {"step": 1, "stage": "I", "learner/tokens": 5e3, "time/rollout": 0.4, "time/learner": 0.25,
         "time/publish": 0.01, "train/tokens_t1": 8.0, "train/tokens_t2": 10.0}
    ] * 5  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    shapes = model_shapes(recipe.model)
    lengths = Lengths(prompt=14, response=6, limit=12, replies=2)
    rates, measured = calibrated(recipe, shapes, Cluster(gpus=64), lengths, tmp_path, 1)
    again = simulate(recipe, measured, rates, learners=1, samplers=1)
    assert measured.response == pytest.approx(9)
    assert (again.sampling, again.learning, again.publishing) == pytest.approx((0.4, 0.25, 0.01))


@pytest.mark.parametrize("text", ["", "no json", '{"time/rollout": 1}\n'])
def test_measurements_without_a_step_are_refused(tmp_path, text):
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(UserError, match=r"metrics\.jsonl"):
        measured_run(tmp_path)


def test_twice_the_bandwidth_halves_decoding(repository):
    recipe = load_recipe(repository / "recipes" / "quickstart.yaml")
    shapes = model_shapes(recipe.model)
    slow, fast = (
        estimated_rates(recipe, shapes, Cluster(memory_gb_per_s=rate, token_overhead_ms=0), LENGTHS)
        for rate in (1000, 2000)
    )
    assert slow.decode_step == pytest.approx(2 * fast.decode_step)


def test_gpus_that_share_an_engine_are_one_sampler_as_fast_as_both(repository):
    recipes = [
        load_recipe(
            repository / "recipes" / "quickstart.yaml", ["rollout.engine=vllm", f"rollout.vllm.tensor_parallel={n}"]
        )
        for n in (1, 2)
    ]
    assert [learner_ranks(recipe, 8) for recipe in recipes] == [(8, 8), (8, 4)]
    cluster = Cluster(token_overhead_ms=0)
    one, two = (estimated_rates(recipe, model_shapes(recipe.model), cluster, LENGTHS) for recipe in recipes)
    assert one.decode_step == pytest.approx(2 * two.decode_step)

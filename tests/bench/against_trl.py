"""The same two-attempt steps by `trl.GRPOTrainer` and by rlcore: `python -m tests.bench.against_trl [job ...]`.

Two processes hold the same model, problems, prompts, reward, group size, loss (token-mean clipped policy gradient with
one group-normalised advantage a trajectory, and k3 KL to a frozen reference) and optimizer. They take turns, one
training step each, so that both see the same machine; a process that waits computes nothing.

TRL has no second attempt of its own. What its user does is a `rollout_func` that generates, appends the correction
turn, generates again and returns an `env_mask` that takes the correction turn out of the loss; generation is TRL's own
(`_generate_single_turn`: `model.generate` on left-padded prompts). Gradient checkpointing and bfloat16 are off;
`--trl-batch` is the number of trajectories in one of its forward passes. rlcore runs `train` as it is.

    quickstart  the quickstart's policy (0.2M parameters) and problems: attempts of 8 to 12 tokens
    tail        0.4M random parameters, the same problems: attempts end at random, at every token with probability 1/45,
                at the latest after 128 (`--limit`), so that lengths have the long tail that a language model's answers
                have; with `--model FOLDER` by that model, which ends its attempts by itself
    growth      rlcore alone on `quickstart` at 64 to 4,096 trajectories a step

Figures are medians over rounds. Seconds are CPU seconds of one thread, reward workers included, because others may use
the machine; the wall clock stands beside them. `learner` is what lies between the end of scoring and the end of the
optimizer step. Memory is that of the process that trains: its peak, and by how much the steps raised it.
"""

import argparse
import contextlib
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

ROUNDS = 7
SHORT = [
    "batch.problems=32",
    "batch.group=8",
    "credit={unit: trajectory, baseline: group, scale: group}",
    "stages=[{name: bench, steps: 1000, kl: [0.01, 0.01]}]",
    "learner={lr: 1e-4, betas: [0.9, 0.95], clip: [0.2, 0.2], max_grad_norm: 1.0, kl: k3, micro_batch_tokens: 2048}",
    "evaluate=null",
    "checkpoint.every=0",
    "track.wandb=off",
    "device=cpu",
    "rewards.workers=1",
]
TAIL = [*SHORT, "batch.problems=8", "conversation.max_prompt_tokens=128", "learner.lr=1e-6"]
JOBS = ["quickstart", "tail", "growth"]
RECIPE = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"


@dataclass(frozen=True)
class Step:
    """CPU seconds of a step and of its learner, wall clock, trajectories, tokens sampled and tokens trained on."""

    seconds: float
    learner: float
    wall: float
    trajectories: int
    sampled: int
    tokens: int


# The two sides. Each does a step whenever it is told to.


def rlcore_side(overrides: list[str], pipe: Connection, trl_batch: int | None) -> None:
    from rlcore.learner import Learner
    from rlcore.recipe import load_recipe
    from rlcore.train.loop import train
    from rlcore.train.run import Run

    seen: dict[str, Any] = {}
    update, steps = Learner.update, Run.steps

    def timed_update(learner: Learner, batch: Any) -> Any:
        began = time.process_time()
        report = update(learner, batch)
        seen["step"] = time.process_time() - began, len(batch.lengths_B), int(batch.loss_mask_N.sum()), len(batch.ids_N)
        return report

    def steps_in_turn(run: Run) -> Any:
        answer = _ready(pipe)
        for step in steps(run):
            yield step
            if not answer(*seen["step"]):
                os._exit(0)  # the run is thrown away

    Learner.update, Run.steps = timed_update, steps_in_turn  # type: ignore[method-assign]
    with (
        tempfile.TemporaryDirectory() as folder,
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
    ):
        train(load_recipe(RECIPE, [*overrides, f"output={folder}/run"]))


def trl_side(overrides: list[str], pipe: Connection, trl_batch: int | None) -> None:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from rewards.arithmetic import pair_sum_reward
    from rlcore.data import ProblemOrder, load_problems
    from rlcore.policy import load_policy, stop_ids
    from rlcore.recipe import load_recipe
    from rlcore.rollout import Conversation

    recipe = load_recipe(RECIPE, overrides)
    problems = load_problems(recipe.data)
    policy = load_policy(recipe.model, [message["content"] for p in problems for message in p.messages], recipe.seed)
    ends = stop_ids(policy)
    conversation = Conversation(policy.tokenizer, recipe.conversation, ends)
    batch = recipe.batch.problems * recipe.batch.group
    ordered = ProblemOrder(problems, recipe.seed).batch(0, 100 * recipe.batch.problems)
    rows = [{**problem.columns, "prompt": list(problem.messages)} for problem in ordered]
    seen: dict[str, Any] = {}

    def rollout(prompts: list[Any], trainer: GRPOTrainer) -> dict[str, Any]:
        opened = policy.tokenizer.apply_chat_template(prompts, add_generation_prompt=True, return_dict=True)[
            "input_ids"
        ]
        first, _ = trainer._generate_single_turn(opened, None, {}, trainer.num_generations)
        follow = [list(conversation.follow("stop" if ids[-1] in ends else "length")) for ids in first]
        asked = [[*p, *a, *f] for p, a, f in zip(opened, first, follow, strict=True)]
        second, _ = trainer._generate_single_turn(asked, None, {}, trainer.num_generations)
        seen["sampled"] = sum(map(len, first)) + sum(map(len, second))
        seen["tokens"] = sum(map(len, asked)) + sum(map(len, second))
        completions = [[*a, *f, *b] for a, f, b in zip(first, follow, second, strict=True)]
        masks = [[1] * len(a) + [0] * len(f) + [1] * len(b) for a, f, b in zip(first, follow, second, strict=True)]
        texts = zip(
            *(policy.tokenizer.batch_decode(each, skip_special_tokens=True) for each in (first, second)), strict=True
        )
        seen["trajectories"] = len(prompts)
        return {
            "prompt_ids": opened,
            "completion_ids": completions,
            "logprobs": None,
            "env_mask": masks,
            "texts": [*texts],
        }

    def reward(texts: list[tuple[str, str]], numbers: list[str], target: list[int], **_: Any) -> list[float]:
        first, second = (pair_sum_reward(list(each), numbers, target) for each in zip(*texts, strict=True))
        seen["scored"] = time.process_time()
        return [a + b for a, b in zip(first, second, strict=True)]

    class Turns(TrainerCallback):
        answer: Callable[..., bool] | None = None

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            """The step before is over with its logging; a new one begins."""
            if self.answer is None:
                self.answer = _ready(pipe)
            elif not self.answer(seen["learner"], seen["trajectories"], seen["sampled"], seen["tokens"]):
                os._exit(0)

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seen["learner"] = time.process_time() - seen["scored"]

    section = recipe.learner
    size = trl_batch or batch
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder, use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none",
            save_strategy="no", disable_tqdm=True, logging_steps=1, max_steps=1000, shuffle_dataset=False,
            per_device_train_batch_size=size, gradient_accumulation_steps=batch // size,
            steps_per_generation=batch // size, num_generations=recipe.batch.group,
            max_completion_length=recipe.conversation.max_attempt_tokens,
            learning_rate=section.lr, lr_scheduler_type="constant", adam_beta1=section.betas[0],
            adam_beta2=section.betas[1], max_grad_norm=section.max_grad_norm, weight_decay=0.0,
            loss_type="dapo", beta=recipe.stages[0].kl[0], use_bias_correction_kl=False,
            epsilon=section.clip[0], epsilon_high=section.clip[1], scale_rewards="group",
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=policy.model, processing_class=policy.tokenizer, reward_funcs=reward, args=config,
            train_dataset=Dataset.from_list(rows), rollout_func=rollout, callbacks=[Turns()],
        )  # fmt: skip
        with contextlib.redirect_stdout(None):
            trainer.train()


def _ready(pipe: Connection) -> Callable[..., bool]:
    """Waits for the first turn. What it returns ends a turn and waits for the next, or says that there is none."""
    memory = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    began = cpu = 0.0

    def wait() -> bool:
        nonlocal began, cpu
        again = pipe.recv()
        began, cpu = time.perf_counter(), _cpu_seconds()
        return bool(again)

    def answer(learner: float, trajectories: int, sampled: int, tokens: int) -> bool:
        spent = _cpu_seconds() - cpu, learner, time.perf_counter() - began
        pipe.send(Step(*spent, trajectories, sampled, tokens))
        if not wait():
            pipe.send((memory, _resident("VmHWM")))
            return False
        return True

    pipe.send(None)
    wait()
    return answer


def _cpu_seconds() -> float:
    """Of this process and those it started."""
    here = psutil.Process()
    times = [process.cpu_times() for process in (here, *here.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def _resident(which: str) -> float:
    """MiB of this process: `VmRSS` now, `VmHWM` at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(which))


# Taking turns.


SIDES = {"TRL": trl_side, "rlcore": rlcore_side}


def take_turns(
    overrides: list[str], sides: list[str], rounds: int, trl_batch: int | None
) -> tuple[dict[str, list[Step]], dict[str, tuple[float, float]]]:
    """Steps of each side without the first (warm-up), and its memory in MiB before the first and at the peak."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for side in sides:
        pipes[side], theirs = context.Pipe()
        processes.append(context.Process(target=SIDES[side], args=(overrides, theirs, trl_batch), daemon=False))
        processes[-1].start()
        theirs.close()
    for pipe in pipes.values():
        pipe.recv()
    steps: dict[str, list[Step]] = {side: [] for side in sides}
    for _ in range(rounds + 1):
        for side, pipe in pipes.items():
            pipe.send(True)
            steps[side].append(pipe.recv())
    memory = {}
    for side, pipe in pipes.items():
        pipe.send(False)
        memory[side] = pipe.recv()
    for process in processes:
        process.join()
    return {side: each[1:] for side, each in steps.items()}, memory


def random_policy(folder: str) -> str:
    """A folder with a random Qwen2 that has the quickstart's tokenizer."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from rlcore.policy import Policy, load_policy, save_policy
    from rlcore.recipe import load_recipe

    tokenizer = load_policy(load_recipe(RECIPE).model).tokenizer
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=256,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    save_policy(Policy(Qwen2ForCausalLM(config), tokenizer), folder)
    return folder


def compare(job: str, overrides: list[str], rounds: int, trl_batch: int | None, model_folder: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = [f"model.path={model_folder or random_policy(folder)}"] if job == "tail" else []
        steps, memory = take_turns([*overrides, *model], ["TRL", "rlcore"], rounds, trl_batch)
    print(f"\n{job}: {steps['rlcore'][0].trajectories} trajectories a step, {rounds} rounds\n")
    print(
        "| | step s | wall s | trajectories/s | tokens sampled | learner s | learner tokens/s | peak MiB | raised MiB |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for side, each in steps.items():
        start, peak = memory[side]
        print(
            f"| {side} | {_median(s.seconds for s in each):.3f} | {_median(s.wall for s in each):.3f} "
            f"| {_median(s.trajectories / s.seconds for s in each):.1f} "
            f"| {_median(s.sampled for s in each):,.0f} | {_median(s.learner for s in each):.3f} "
            f"| {_median(s.tokens / s.learner for s in each):,.0f} | {peak:,.0f} | {peak - start:,.0f} |"
        )
    pairs = list(zip(steps["TRL"], steps["rlcore"], strict=True))
    whole = [t.seconds / t.trajectories / (r.seconds / r.trajectories) for t, r in pairs]
    clock = [t.wall / t.trajectories / (r.wall / r.trajectories) for t, r in pairs]
    learner = [t.learner / t.tokens / (r.learner / r.tokens) for t, r in pairs]
    (start, peak), (other_start, other_peak) = memory["rlcore"], memory["TRL"]
    print(
        f"| ratio | | {_median(clock):.2f} | {_median(whole):.2f} ({min(whole):.2f} to {max(whole):.2f}) | | "
        f"| {_median(learner):.2f} ({min(learner):.2f} to {max(learner):.2f}) | {peak / other_peak:.2f} "
        f"| {(peak - start) / (other_peak - other_start):.2f} |"
    )


def growth(rounds: int) -> None:
    print("\n| trajectories a step | ms/trajectory | of them learner | peak MiB |\n| ---: | ---: | ---: | ---: |")
    for trajectories in (64, 256, 1024, 4096):
        overrides = [*SHORT, f"batch.problems={trajectories // 8}"]
        steps, memory = take_turns(overrides, ["rlcore"], rounds, None)
        whole, learner = (
            _median(1e3 * getattr(s, name) / s.trajectories for s in steps["rlcore"]) for name in ("seconds", "learner")
        )
        print(f"| {trajectories:,} | {whole:.3f} | {learner:.3f} | {memory['rlcore'][1]:,.0f} |", flush=True)


def _median(values: Any) -> float:
    return statistics.median(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", choices=JOBS, default=JOBS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--trl-batch", type=int, help="trajectories in one forward pass of TRL")
    parser.add_argument("--model", help="a Hugging Face folder, for tail")
    parser.add_argument("--limit", type=int, default=128, help="tokens of tail's longest attempt")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the processes that are measured
    for job in options.jobs:
        if job == "growth":
            growth(options.rounds)
        else:
            limit = f"conversation.max_attempt_tokens={options.limit}"
            overrides = [*TAIL, limit] if job == "tail" else SHORT
            compare(job, overrides, options.rounds, options.trl_batch, options.model)


if __name__ == "__main__":
    main()

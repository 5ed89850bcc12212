"""What one learner step costs, and what DeepSpeed adds to it: `python -m tests.bench.learner [trajectories]`.

A Qwen2 of 0.4M parameters trains on two-attempt trajectories of about 60 tokens. In turns, one step of each arm:

    whole logits   a plain loop: `model(...).logits` for every position, autograd, AdamW
    bare           the learner's own forward pass and losses, with torch alone around them
    zero N         `Learner.update` (includes the report's statistics)

Figures are milliseconds of CPU time of this process (not of others that share the machine) and of wall clock, medians.
"""

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from rlcore.learner import Learner
from rlcore.learner.batch.packing import MicroBatch, micro_batches
from rlcore.learner.batch.planning import plan_micro_batches
from rlcore.learner.loss.losses import entropy, kl_exact, ppo
from rlcore.learner.policy_module import PolicyModule
from rlcore.learner.reference import Reference
from rlcore.learner.zero.engine import engine_settings
from rlcore.ranks import start_distributed
from rlcore.recipe.schema import LearnerConfig
from rlcore.types import TokenBatch

VOCABULARY, GROUP, ROUNDS = 64, 8, 5
SECTION = LearnerConfig(lr=3e-4, kl="exact")
CPU = torch.device("cpu")


def quickstart_model() -> PreTrainedModel:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=256,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    return Qwen2ForCausalLM(config).eval()


def quickstart_batch(trajectories: int) -> TokenBatch:
    """Groups of 8; prompt of 25 to 30 tokens, answer of 8, prompt of 12, answer of 8."""
    rng = np.random.default_rng(0)
    prompt_B = rng.integers(25, 31, -(-trajectories // GROUP)).repeat(GROUP)[:trajectories]
    parts_B4 = np.stack([prompt_B, *np.full((3, trajectories), [[8], [12], [8]])], axis=1)
    offsets_B1 = np.r_[0, parts_B4.sum(1).cumsum()]
    turn_N = np.repeat(np.tile([1, 1, 2, 2], trajectories), parts_B4.ravel()).astype(np.int8)
    mask_N = np.repeat(np.tile([False, True, False, True], trajectories), parts_B4.ravel())
    count = len(turn_N)
    ids_N = rng.integers(0, VOCABULARY, count)
    for b in range(trajectories):
        first = offsets_B1[b - b % GROUP]
        ids_N[offsets_B1[b] : offsets_B1[b] + prompt_B[b]] = ids_N[first : first + prompt_B[b]]
    return TokenBatch(
        offsets_B1=offsets_B1,
        ids_N=ids_N,
        turn_N=turn_N,
        loss_mask_N=mask_N,
        advantage_N=np.where(mask_N, rng.normal(size=count), 0).astype(np.float32),
        kl_weight_N=np.where(mask_N, 0.1, 0).astype(np.float32),
        sampler_logprob_N=np.where(mask_N, -np.log(VOCABULARY), 0).astype(np.float32),
    )


def bare_step(batch: TokenBatch) -> Callable[[], None]:
    """The learner's forward pass and losses without DeepSpeed and without statistics."""
    policy = PolicyModule(quickstart_model(), 1.0)
    reference = Reference(policy, engine_settings(SECTION, policy, CPU))
    return _plain_loop(batch, policy, lambda micro: policy(micro, reference.compared(micro)), tree=True)


def whole_logits_step(batch: TokenBatch) -> Callable[[], None]:
    """What one writes first: logits and log-softmax of policy and reference at every position."""
    model, reference = quickstart_model(), quickstart_model().requires_grad_(False)

    def log_softmax(which: PreTrainedModel, micro: MicroBatch) -> torch.Tensor:
        return (
            which(input_ids=micro.inputs.ids_RT, use_cache=False).logits.log_softmax(-1).flatten(0, 1)[micro.source_u]
        )

    def scores(micro: MicroBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        log_p, log_q = log_softmax(model, micro), log_softmax(reference, micro)
        return log_p.gather(1, micro.target_u[:, None])[:, 0], entropy(log_p), kl_exact(log_p, log_q)

    return _plain_loop(batch, model, scores, tree=False)


def _plain_loop(batch: TokenBatch, module: torch.nn.Module, scores: Callable, tree: bool) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(module.parameters(), lr=SECTION.lr, betas=SECTION.betas, fused=True)
    tokens = int(batch.loss_mask_N.sum())

    def step() -> None:
        plan = plan_micro_batches(batch, np.arange(len(batch.lengths_B)), SECTION.micro_batch_tokens, tree=tree)
        for micro in micro_batches(batch, plan, len(plan), CPU, tree=tree):
            logprob_n, _, kl_n = scores(micro)
            log_ratio_n = logprob_n - micro.sampler_logprob_n
            loss_n, _ = ppo(logprob_n, log_ratio_n, micro.advantage_n, SECTION.clip)
            ((loss_n + micro.kl_weight_n * kl_n).sum() / tokens).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), SECTION.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()

    return step


def learner_step(batch: TokenBatch, zero: int) -> Callable[[], object]:
    section = SECTION.model_copy(update={"zero": zero})
    learner = Learner(section, quickstart_model(), temperature=1.0, kl_used=True, total_steps=100, seed=0)
    return lambda: learner.update(batch)


def main() -> None:
    trajectories = int(sys.argv[1]) if len(sys.argv) > 1 else 512
    start_distributed("cpu")
    batch = quickstart_batch(trajectories)
    arms = {"whole logits": whole_logits_step(batch), "bare": bare_step(batch)}
    arms |= {f"zero {zero}": learner_step(batch, zero) for zero in (0, 1, 2, 3)}
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
    for _ in range(ROUNDS + 1):
        for name, step in arms.items():
            cpu, wall = time.process_time(), time.perf_counter()
            step()
            spent[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    print(f"{trajectories} trajectories, {len(batch.ids_N)} tokens, {torch.get_num_threads()} threads, {ROUNDS} rounds")
    for name, rounds in spent.items():
        cpu, wall = (1e3 * statistics.median(column) for column in zip(*rounds[1:], strict=True))
        print(f"{name:14s} {cpu:8.1f} ms CPU  {wall:8.1f} ms wall")


if __name__ == "__main__":
    main()

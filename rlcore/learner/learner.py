"""The learner: per-token streams in, updated weights and a report out. It knows nothing of rewards or stages."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlcore.entries import KL_ESTIMATORS
from rlcore.errors import UserError
from rlcore.learner.batch.balance import gathered, part_of
from rlcore.learner.batch.packing import MicroBatch, memory_named, micro_batches
from rlcore.learner.batch.planning import Planned, plan_micro_batches, split_minibatches
from rlcore.learner.cpu_decoder import has_few_operations
from rlcore.learner.layers import checkpoint_layers, use_fused_kernels
from rlcore.learner.loss.averaging import LossTokens
from rlcore.learner.loss.losses import kl_exact, kl_reward
from rlcore.learner.loss.objective import Objective, carries_gradient, with_kl_in_reward
from rlcore.learner.loss.statistics import LearnerReport, LossStatistics
from rlcore.learner.policy_module import PolicyModule
from rlcore.learner.reference import Reference
from rlcore.learner.sequence_parallel import check_stretches
from rlcore.learner.zero.engine import (
    engine_settings,
    guarded_step,
    loss_scale,
    set_loss_scale,
    set_schedule,
    start_engine,
)
from rlcore.learner.zero.further_settings import refused_by_deepspeed
from rlcore.learner.zero.state_files import load_state, save_state
from rlcore.learner.zero.weights import gathered_adapters, gathered_weights
from rlcore.policy.lora import add_lora, lora_dropout
from rlcore.policy.truncation import KEEP_ALL, Truncation
from rlcore.ranks import present_ranks
from rlcore.recipe.schema import LearnerConfig, LoraConfig
from rlcore.types import TokenBatch


class Learner:
    """Holds the trained policy. Every method is called by all ranks together; a batch holds this rank's trajectories.

    The loss is an average over the loss tokens of a minibatch, or over its attempts (`average`), of `policy_loss +
    kl_weight · KL(policy ‖ reference) - entropy_bonus · entropy`. Numerator and denominator are those of all ranks:
    how tokens fall into ranks and micro-batches changes nothing.
    """

    def __init__(
        self,
        section: LearnerConfig,
        model: PreTrainedModel,
        *,
        temperature: float,
        kl_used: bool,
        total_steps: int,
        seed: int,
        device: torch.device | None = None,
        lora: LoraConfig | None = None,
        exact_sampler: bool = True,
        truncation: Truncation = KEEP_ALL,
        max_sampled_tokens: int = 1024,
    ) -> None:
        """Takes over `model`. Logits are divided by `temperature`, then cut by `truncation`, before the softmax.

        `kl_used`: keep a reference to measure KL against. `device`: where to train, if not where the model lies; a
        model that ZeRO-3 is to split may lie on the CPU. `lora`: put adapters into the model and train them.
        `total_steps`: optimizer steps of the whole run,
        which the learning rate follows. `exact_sampler`: the sampler's log-probabilities are this model's own.
        `max_sampled_tokens`, of the longest trajectory, is what the constant average divides by.
        """
        # Dropout stays off: what is trained is the distribution that was sampled.
        policy = PolicyModule(
            model.eval(),
            temperature,
            truncation=truncation,
            offload_activations="activations" in section.offload,
            sequence_parallel=section.sequence_parallel,
        )
        if section.fused_kernels:
            use_fused_kernels(model, device or model.device)
        if lora:
            add_lora(model, lora, seed)
        self._section = section
        self._seed = seed
        self._max_sampled_tokens = max_sampled_tokens
        choice = section.old_logprobs
        self._old_is_sampler = choice == "sampler" or (choice == "auto" and exact_sampler)
        self._device = device or model.device
        self._ranks = present_ranks(self._device)
        # Ranks that share each sequence hold the same part of a batch.
        self._part, self._place = divmod(self._ranks.rank, section.sequence_parallel)
        # ZeRO-3 gathers a layer's weights when it is called, at the same passes on all ranks; and a layer that is
        # computed again must be called, and must not write into a cache again.
        free = section.zero < 3 and not section.activation_checkpointing
        self._share_prompts = policy.shares_prompts and free
        self._trees = free and policy.separable and not policy.sequence and has_few_operations(model)
        settings = engine_settings(section, policy, self._device)
        with refused_by_deepspeed(section.deepspeed):
            self._reference = Reference(policy, settings) if kl_used else None
            if section.activation_checkpointing:
                checkpoint_layers(model)
            self._engine = start_engine(section, settings, policy, total_steps)
        self._skipped_in_row = 0
        if policy.sequence:
            check_stretches(self._engine.module, self._device)

    @property
    def module(self) -> PreTrainedModel:
        """The live model; its parameters are whole unless `zero` is 3."""
        return self._engine.module.model

    def update(self, batch: TokenBatch) -> LearnerReport:
        """One optimizer step for each minibatch of `batch`; those without a loss token anywhere are passed over.

        Trajectories change ranks before each, so that all have about as many tokens. Those that carry no gradient count
        in the average and are not computed.
        """
        batch, _ = gathered(batch, self._ranks)
        minibatches = self._minibatches(batch)
        loss_tokens = LossTokens.of(batch)
        kl_used = self._reference is not None and bool(batch.kl_weight_N.any())
        live_B = carries_gradient(batch, self._section)
        plans, counts = self._plans(batch, [chosen[live_B[chosen]] for chosen in minibatches])
        counts = [max(count, 1) for count in counts]  # an optimizer step follows a backward pass, if of nothing
        kl_in_reward = kl_used and KL_ESTIMATORS[self._section.kl] is kl_reward
        batch, objective = self._objective(batch, loss_tokens, np.flatnonzero(live_B), kl_in_reward=kl_in_reward)
        lags = 1 if batch.lag_N is None else int(batch.lag_N.max(initial=0)) + 1
        statistics = LossStatistics(int(batch.turn_N.max(initial=1)), self._device, lags)
        norms: list[float] = []
        skipped, lr = 0, self._engine.get_lr()[0]
        for number, (chosen, plan, count) in enumerate(zip(minibatches, plans, counts, strict=True)):
            size = loss_tokens.size(self._section.average, chosen)
            if not size:
                continue
            for place, micro in enumerate(micro_batches(batch, plan, count, self._device, tree=self._trees), start=1):
                self._engine.set_gradient_accumulation_boundary(place == count)
                with memory_named(micro, self._section.micro_batch_tokens), lora_dropout(self.module):
                    losses = self._losses(micro, objective, size, kl_used=kl_used)
                    if not self._place:
                        statistics.add(micro, losses, untouched=number == 0, lag_n=self._lags(batch, micro))
                    loss = losses["loss"].sum()
                    # A loss that is not finite must not pass with a finite gradient: it makes that not finite too.
                    guard = 1 + 0 * loss.detach()
                    # DeepSpeed averages gradients over ranks; the loss is a sum over them.
                    self._engine.backward(loss * guard * self._ranks.world)
            lr = self._engine.get_lr()[0]
            norm, applied = guarded_step(self._engine, self._section.max_grad_norm)
            norms.append(norm)
            skipped += not applied
            self._count_skipped(applied)
        tokens = self._section.epochs * int(batch.loss_mask_N.sum())
        report = statistics.report(self._ranks.world, tokens, steps=len(norms), kl_used=kl_used)
        report["grad_norm"] = sum(norms) / max(len(norms), 1)
        report["skipped"] = skipped
        report["lr"] = lr
        report["micro_batches"] = sum(counts)
        return report

    @torch.no_grad()
    def logprobs(self, batch: TokenBatch) -> np.ndarray:
        """Log-probabilities under the present weights, `[N]` float32: 0 where `loss_mask_N` is False."""
        whole, mine = gathered(batch, self._ranks)
        return self._logprobs(whole, np.arange(len(whole.lengths_B)))[mine]

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """`(name, whole tensor)` of every parameter, adapters merged. Copy what must outlive the next one."""
        return gathered_weights(self.module)

    def adapters(self) -> Iterator[tuple[str, Tensor]]:
        """`(name, whole tensor)` of the adapters' parameters. Copy what must outlive the next one."""
        return gathered_adapters(self.module)

    def whole_weights(self) -> dict[str, Tensor]:
        """All of `weights` at once, copied to the CPU of the first rank; empty on the others."""
        copied = ((name, tensor.to("cpu", copy=True) if self._ranks.first else None) for name, tensor in self.weights())
        return {name: tensor for name, tensor in copied if tensor is not None}

    def save(self, folder: Path) -> list[Path]:
        """Write this rank's part of weights, optimizer and schedule into `folder`; returns the files."""
        folder.mkdir(parents=True, exist_ok=True)
        counters = {
            "global_steps": self._engine.global_steps,
            "schedule_steps": self._engine.lr_scheduler.last_epoch,
            "skipped_in_row": self._skipped_in_row,
            "loss_scale": loss_scale(self._engine),
        }
        return save_state(self._engine, self.module, folder, self._ranks, counters)

    def load(self, folder: Path) -> None:
        """Take up what `save` wrote for the same model, with any number of ranks and any `zero`.

        Raises UserError where something lacks.
        """
        counters = load_state(self._engine, self.module, folder)
        set_schedule(self._engine, counters["schedule_steps"])
        self._engine.global_steps = counters["global_steps"]
        self._skipped_in_row = counters["skipped_in_row"]
        set_loss_scale(self._engine, counters.get("loss_scale", {}))

    def close(self) -> None:
        """Let go of the engine and its memory."""
        self._engine.destroy()
        self._reference = None

    def _plans(self, batch: TokenBatch, minibatches: list[np.ndarray]) -> tuple[list[list[Planned]], list[int]]:
        """This rank's micro-batches of each minibatch, and how many of them the ranks with most have."""
        section, parts = self._section, self._ranks.world // self._section.sequence_parallel
        budget, policy = section.micro_batch_tokens * section.sequence_parallel, self._engine.module
        shared = self._share_prompts
        layout = {"share_prompts": shared, "pack": policy.packs, "tree": self._trees}
        mine = [part_of(batch, chosen, self._part, parts, share_prompts=shared) for chosen in minibatches]
        plans = [plan_micro_batches(batch, chosen, budget, **layout) for chosen in mine]
        counts_M = torch.tensor([len(plan) for plan in plans], device=self._device)
        if self._ranks.world > 1:
            torch.distributed.all_reduce(counts_M, torch.distributed.ReduceOp.MAX)
        return plans, counts_M.tolist()

    def _minibatches(self, batch: TokenBatch) -> list[np.ndarray]:
        """The trajectories of each optimizer step, epoch after epoch."""
        seeds = [(self._seed, self._engine.global_steps, epoch) for epoch in range(self._section.epochs)]
        return [chosen for seed in seeds for chosen in split_minibatches(batch, self._section.minibatches, seed)]

    def _logprobs(
        self, batch: TokenBatch, chosen: np.ndarray, predict: Callable[[MicroBatch], Tensor] | None = None
    ) -> np.ndarray:
        """`logprobs` of the chosen trajectories of all ranks, which each computes a part of; 0 of others.

        `predict` computes the log-probabilities `[n]` of a micro-batch; the policy's by default.
        """
        (plan,), (count,) = self._plans(batch, [chosen])
        logprob_N = torch.zeros(len(batch.ids_N), device=self._device)
        for micro in micro_batches(batch, plan, count, self._device, tree=self._trees):
            with memory_named(micro, self._section.micro_batch_tokens):
                logprob_n = (predict(micro) if predict else self._engine.module(micro)[0]).float()
            if not self._place:
                logprob_N[micro.index_n] = logprob_n
        if self._ranks.world > 1:
            torch.distributed.all_reduce(logprob_N)
        return logprob_N.cpu().numpy()

    @torch.no_grad()
    def _objective(
        self, batch: TokenBatch, loss_tokens: LossTokens, live: np.ndarray, *, kl_in_reward: bool
    ) -> tuple[TokenBatch, Objective]:
        """The loss, and the batch that it is taken on, whose advantages hold the KL if it is part of the reward.

        Old log-probabilities are computed only if they are asked for and other weights will follow, or for that KL.
        """
        others_follow = self._section.optimizer_steps > 1
        old_N = reference_N = None
        if not self._old_is_sampler and (others_follow or kl_in_reward):
            old_N = self._logprobs(batch, live)
        if kl_in_reward:
            assert self._reference is not None
            reference_N = self._logprobs(batch, live, self._reference.logprobs)
            own_N = batch.sampler_logprob_N if old_N is None else old_N
            batch = with_kl_in_reward(batch, loss_tokens, own_N - reference_N)
        return batch, Objective(
            self._section,
            loss_tokens.run_N,
            loss_tokens.trajectory_N,
            loss_tokens.token_weight_N(self._section.average, self._max_sampled_tokens),
            old_logprob_N=old_N if others_follow else None,
            old_is_sampler=self._old_is_sampler,
            reference_logprob_N=reference_N,
        )

    def _losses(self, micro: MicroBatch, objective: Objective, size: int, *, kl_used: bool) -> dict[str, Tensor]:
        estimator = KL_ESTIMATORS[self._section.kl]
        exact = estimator is kl_exact  # summed over the vocabulary by the output head, which knows its gradient
        reference = self._reference if kl_used else None
        # The reference first: with ZeRO-3, forward and backward pass of the policy are to follow each other.
        other_n = objective.reference_logprobs(micro)
        if other_n is None and reference and not exact:
            other_n = reference.logprobs(micro)
        compared = reference.compared(micro) if reference and exact else None
        logprob_n, entropy_n, kl_n = self._engine(micro, compared)
        if other_n is not None:
            kl_n = estimator(logprob_n, other_n)
        losses = objective(micro, size, logprob_n=logprob_n, entropy_n=entropy_n, kl_n=kl_n)
        return {"logprob": logprob_n, **losses}

    def _lags(self, batch: TokenBatch, micro: MicroBatch) -> Tensor | None:
        """The ages of a micro-batch's loss tokens, `[n]` int64."""
        if batch.lag_N is None:
            return None
        return torch.from_numpy(batch.lag_N[micro.index_n]).to(self._device, torch.int64)

    def _count_skipped(self, applied: bool) -> None:
        """All ranks know alike whether a step was applied."""
        self._skipped_in_row = 0 if applied else self._skipped_in_row + 1
        if self._skipped_in_row >= self._section.max_skipped:
            raise UserError(
                f"{self._skipped_in_row} optimizer steps in a row were skipped because a loss or gradient was not "
                "finite (learner.max_skipped): lower learner.lr, or look at the rewards and log-probabilities"
            )

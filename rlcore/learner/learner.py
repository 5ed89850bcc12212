"""The learner: per-token streams in, updated weights and a report out. It knows nothing of rewards or stages."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlcore.learner.activations import checkpoint_layers
from rlcore.learner.averaging import LossTokens
from rlcore.learner.balance import balanced
from rlcore.learner.engine import engine_settings, guarded_step, set_schedule, start_engine
from rlcore.learner.guards import memory_named
from rlcore.learner.losses import KL_ESTIMATORS
from rlcore.learner.objective import Objective
from rlcore.learner.packing import MicroBatch, micro_batches
from rlcore.learner.planning import Planned, plan_micro_batches, split_minibatches
from rlcore.learner.policy_module import PolicyModule
from rlcore.learner.reference import Reference
from rlcore.learner.state_files import Counters, load_counters, load_state, optimizer_steps, save_counters, save_state
from rlcore.learner.tally import LearnerReport, Tally
from rlcore.learner.weights import gathered_weights
from rlcore.policy.lora import add_lora, lora_dropout
from rlcore.recipe.schema import Learner as LearnerSection
from rlcore.recipe.schema import Lora
from rlcore.types import TokenBatch, UserError


class Learner:
    """Holds the trained policy. Every method is called by all ranks together; a batch holds this rank's trajectories.

    The loss is an average over the loss tokens of a minibatch, or over its attempts (`average`), of `policy_loss +
    kl_weight · KL(policy ‖ reference) - entropy_bonus · entropy`. Numerator and denominator are those of all ranks:
    how tokens fall into ranks and micro-batches changes nothing.
    """

    def __init__(
        self,
        section: LearnerSection,
        model: PreTrainedModel,
        *,
        temperature: float,
        kl_used: bool,
        total_steps: int,
        seed: int,
        device: torch.device | None = None,
        lora: Lora | None = None,
        exact_sampler: bool = True,
        max_sampled_tokens: int = 1024,
    ) -> None:
        """Takes over `model`. Logits are divided by `temperature` before the softmax.

        `kl_used`: keep a reference to measure KL against. `device`: where to train, if not where the model lies; a
        model that ZeRO-3 is to split may lie on the CPU. `lora`: put adapters into the model and train them.
        `total_steps`: optimizer steps of the whole run,
        which the learning rate follows. `exact_sampler`: the sampler's log-probabilities are this model's own.
        `max_sampled_tokens`, of the longest trajectory, is what the constant average divides by.
        """
        # Dropout stays off: what is trained is the distribution that was sampled.
        policy = PolicyModule(model.eval(), temperature, offload_activations="activations" in section.offload)
        if lora:
            add_lora(model, lora, seed)
        self._section = section
        self._seed = seed
        self._max_sampled_tokens = max_sampled_tokens
        choice = section.old_logprobs
        self._old_is_sampler = choice == "sampler" or (choice == "auto" and exact_sampler)
        self._device = device or model.device
        self._world = torch.distributed.get_world_size()
        self._rank = torch.distributed.get_rank()
        settings = engine_settings(section, policy, self._device)
        self._reference = Reference(policy, settings) if kl_used else None
        if section.activation_checkpointing:
            checkpoint_layers(model)
        # ZeRO-3 gathers weights at every pass through the model, so all ranks must make the same passes. A layer that
        # is computed again must not write into a cache again.
        self._share_prompts = policy.shares_prompts and section.zero < 3 and not section.activation_checkpointing
        self._engine = start_engine(section, settings, policy, total_steps)
        self._skipped_in_row = 0

    @property
    def module(self) -> PreTrainedModel:
        """The live model; its parameters are whole unless `zero` is 3."""
        return self._engine.module.model

    def update(self, batch: TokenBatch) -> LearnerReport:
        """One optimizer step for each minibatch of `batch`; those without a loss token anywhere are passed over.

        Before the first, trajectories change ranks until all ranks have about as many tokens.
        """
        batch = balanced(batch, share_prompts=self._share_prompts)
        minibatches = self._minibatches(batch)
        plans = [self._plan(batch, chosen) for chosen in minibatches]
        loss_tokens = LossTokens.of(batch)
        agreed = self._agree(batch, loss_tokens, minibatches, plans)
        objective = self._objective(batch, loss_tokens)
        tally = Tally(agreed.turns, self._device)
        norms: list[float] = []
        skipped, lr = 0, self._engine.get_lr()[0]
        for number, (plan, size, count) in enumerate(zip(plans, agreed.sizes_M, agreed.counts_M, strict=True)):
            if not size:
                continue
            for place, micro in enumerate(micro_batches(batch, plan, count, self._device), start=1):
                self._engine.set_gradient_accumulation_boundary(place == count)
                with memory_named(micro, self._section.micro_batch_tokens), lora_dropout(self.module):
                    losses = self._losses(micro, objective, size, kl_used=agreed.kl_used)
                    tally.add(micro, losses, untouched=number == 0)
                    loss = losses["loss"].sum()
                    # A loss that is not finite must not pass with a finite gradient: it makes that not finite too.
                    guard = 1 + 0 * loss.detach()
                    # DeepSpeed averages gradients over ranks; the loss is a sum over them.
                    self._engine.backward(loss * guard * self._world)
            lr = self._engine.get_lr()[0]
            norm, applied = guarded_step(self._engine, self._section.max_grad_norm)
            norms.append(norm)
            skipped += not applied
            self._count_skipped(applied)
        report = tally.report(self._world, steps=len(norms), kl_used=agreed.kl_used)
        report["grad_norm"] = sum(norms) / max(len(norms), 1)
        report["skipped"] = skipped
        report["lr"] = lr
        report["micro_batches"] = sum(agreed.counts_M)
        return report

    @torch.no_grad()
    def logprobs(self, batch: TokenBatch) -> np.ndarray:
        """Log-probabilities under the present weights, `[N]` float32: 0 where `loss_mask_N` is False."""
        chosen = np.arange(len(batch.lengths_B))
        plan = self._plan(batch, chosen)
        (count,) = self._agree(batch, LossTokens.of(batch), [chosen], [plan]).counts_M
        logprob_N = np.zeros(len(batch.ids_N), dtype=np.float32)
        for micro in micro_batches(batch, plan, count, self._device):
            with memory_named(micro, self._section.micro_batch_tokens):
                logprob_N[micro.index_n] = self._engine.module(micro)[0].float().cpu().numpy()
        return logprob_N

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """`(name, whole tensor)` of every parameter, adapters merged. Copy what must outlive the next one."""
        return gathered_weights(self.module)

    def whole_weights(self) -> dict[str, Tensor]:
        """All of `weights` at once, copied to the CPU of the first rank; empty on the others."""
        copied = ((name, tensor.to("cpu", copy=True) if self._rank == 0 else None) for name, tensor in self.weights())
        return {name: tensor for name, tensor in copied if tensor is not None}

    def save(self, folder: Path) -> list[Path]:
        """Write this rank's part of weights, optimizer and schedule into `folder`; returns the files."""
        folder.mkdir(parents=True, exist_ok=True)
        written = save_state(self._engine, self.module, folder, self._rank, self._world)
        if self._rank == 0:
            counters = Counters(
                global_steps=self._engine.global_steps,
                schedule_steps=self._engine.lr_scheduler.last_epoch,
                optimizer_steps=optimizer_steps(self._engine),
                skipped_in_row=self._skipped_in_row,
            )
            written.append(save_counters(folder, counters))
        return written

    def load(self, folder: Path) -> None:
        """Take up what `save` wrote for the same model, with any number of ranks and any `zero`.

        Raises UserError where something lacks.
        """
        counters = load_counters(folder)
        load_state(self._engine, self.module, folder, counters.optimizer_steps)
        set_schedule(self._engine, counters.schedule_steps)
        self._engine.global_steps = counters.global_steps
        self._skipped_in_row = counters.skipped_in_row

    def close(self) -> None:
        """Let go of the engine and its memory."""
        self._engine.destroy()
        self._reference = None

    def _plan(self, batch: TokenBatch, chosen: np.ndarray) -> list[Planned]:
        budget, pack = self._section.micro_batch_tokens, self._engine.module.packs
        return plan_micro_batches(batch, chosen, budget, self._share_prompts, pack)

    def _minibatches(self, batch: TokenBatch) -> list[np.ndarray]:
        """The trajectories of each optimizer step, epoch after epoch; each rank shuffles its own."""
        seeds = [(self._seed, self._engine.global_steps, epoch, self._rank) for epoch in range(self._section.epochs)]
        return [chosen for seed in seeds for chosen in split_minibatches(batch, self._section.minibatches, seed)]

    def _objective(self, batch: TokenBatch, loss_tokens: LossTokens) -> Objective:
        """Old log-probabilities are computed only if they are asked for and other weights will follow."""
        recompute = not self._old_is_sampler and self._section.optimizer_steps > 1
        return Objective(
            self._section,
            loss_tokens.attempt_N,
            loss_tokens.share_N(self._section.average, self._max_sampled_tokens),
            old_logprob_N=self.logprobs(batch) if recompute else None,
            old_is_sampler=self._old_is_sampler,
        )

    def _agree(
        self, batch: TokenBatch, loss_tokens: LossTokens, minibatches: list[np.ndarray], plans: list[list[Planned]]
    ) -> "_Agreed":
        kl_used = self._reference is not None and bool(batch.kl_weight_N.any())
        most = [int(batch.turn_N.max(initial=1)), int(kl_used), *(len(plan) for plan in plans)]
        sizes_M = [loss_tokens.size(self._section.average, chosen) for chosen in minibatches]
        if self._world > 1:
            most_all, sizes_all = (torch.tensor(values, device=self._device) for values in (most, sizes_M))
            torch.distributed.all_reduce(most_all, torch.distributed.ReduceOp.MAX)
            torch.distributed.all_reduce(sizes_all)
            most, sizes_M = most_all.tolist(), sizes_all.tolist()
        turns, any_kl, *counts_M = most
        return _Agreed(turns, bool(any_kl), sizes_M, counts_M)

    def _losses(self, micro: MicroBatch, objective: Objective, size: int, *, kl_used: bool) -> dict[str, Tensor]:
        estimator = KL_ESTIMATORS.get(self._section.kl)
        reference = self._reference if kl_used else None
        # The reference first: with ZeRO-3, forward and backward pass of the policy are to follow each other.
        other_n = reference.logprobs(micro) if estimator and reference else None
        compared = reference.compared(micro) if reference and not estimator else None
        logprob_n, entropy_n, kl_n = self._engine(micro, compared)
        if estimator and other_n is not None:
            kl_n = estimator(logprob_n, other_n)
        losses = objective(micro, size, logprob_n=logprob_n, entropy_n=entropy_n, kl_n=kl_n)
        return {"logprob": logprob_n, **losses}

    def _count_skipped(self, applied: bool) -> None:
        """All ranks know alike whether a step was applied."""
        self._skipped_in_row = 0 if applied else self._skipped_in_row + 1
        if self._skipped_in_row >= self._section.max_skipped:
            raise UserError(
                f"{self._skipped_in_row} optimizer steps in a row were skipped because a loss or gradient was not "
                "finite (learner.max_skipped): lower learner.lr, or look at the rewards and log-probabilities"
            )


@dataclass(frozen=True, slots=True)
class _Agreed:
    """What all ranks must know alike of an update."""

    turns: int
    kl_used: bool
    """Whether any rank has a token with β > 0; without one the reference is not run."""
    sizes_M: list[int]
    """What the loss of each minibatch is divided by."""
    counts_M: list[int]
    """Micro-batches of each minibatch."""

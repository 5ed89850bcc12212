"""The learner: per-token streams in, updated weights and a report out. It knows nothing of rewards or stages."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlcore.learner.engine import guarded_step, start_engine
from rlcore.learner.losses import kl_k3, policy_loss
from rlcore.learner.packing import MicroBatch, micro_batches
from rlcore.learner.planning import Planned, plan_micro_batches, split_minibatches
from rlcore.learner.policy_module import PolicyModule, Reference
from rlcore.learner.tally import LearnerReport, Tally
from rlcore.learner.weights import gathered_weights
from rlcore.recipe.schema import Learner as LearnerSection
from rlcore.types import TokenBatch, UserError

_TAG = "learner"


class Learner:
    """Holds the trained policy. Every method is called by all ranks together; a batch holds this rank's trajectories.

    The loss is the sum over loss tokens of `policy_loss + kl_weight · KL(policy ‖ reference)`, divided by the number of
    loss tokens of the minibatch over all ranks: how tokens fall into ranks and micro-batches changes nothing.
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
    ) -> None:
        """Takes over `model`, on the device where it lies. Logits are divided by `temperature` before the softmax.

        `kl_used`: keep a frozen copy of `model` to measure KL against. `total_steps`: optimizer steps of the whole run,
        which the learning rate follows.
        """
        # Dropout stays off: what is trained is the distribution that was sampled.
        policy = PolicyModule(model.eval(), temperature)
        self._section = section
        self._seed = seed
        self._device = model.device
        self._world = torch.distributed.get_world_size()
        self._rank = torch.distributed.get_rank()
        self._reference = Reference(policy) if kl_used else None
        # ZeRO-3 gathers weights at every pass through the model, so all ranks must make the same passes.
        self._share_prompts = policy.shares_prompts and section.zero < 3
        self._engine = start_engine(section, policy, total_steps)

    @property
    def module(self) -> PreTrainedModel:
        """The live model; its parameters are whole unless `zero` is 3."""
        return self._engine.module.model

    def update(self, batch: TokenBatch) -> LearnerReport:
        """One optimizer step for each minibatch of `batch`; those without a loss token anywhere are passed over."""
        seed = (self._seed, self._engine.global_steps, self._rank)
        minibatches = split_minibatches(batch, self._section.minibatches, seed)
        plans = [self._plan(batch, chosen) for chosen in minibatches]
        turns, tokens_M, counts_M = self._agree(batch, minibatches, plans)
        tally = Tally(turns, self._device)
        norms: list[float] = []
        skipped, lr = 0, self._engine.get_lr()[0]
        for number, (plan, tokens, count) in enumerate(zip(plans, tokens_M, counts_M, strict=True)):
            if not tokens:
                continue
            self._accumulate(batch, plan, count, tokens, tally, untouched=number == 0)
            lr = self._engine.get_lr()[0]
            norm, applied = guarded_step(self._engine, self._section.max_grad_norm)
            norms.append(norm)
            skipped += not applied
        report = tally.report(self._world, kl_used=self._reference is not None)
        report["grad_norm"] = sum(norms) / max(len(norms), 1)
        report["skipped"] = skipped
        report["lr"] = lr
        report["micro_batches"] = sum(counts_M)
        return report

    @torch.no_grad()
    def logprobs(self, batch: TokenBatch) -> np.ndarray:
        """Log-probabilities under the present weights, `[N]` float32: 0 where `loss_mask_N` is False."""
        chosen = np.arange(len(batch.lengths_B))
        plan = self._plan(batch, chosen)
        _, _, (count,) = self._agree(batch, [chosen], [plan])
        logprob_N = np.zeros(len(batch.ids_N), dtype=np.float32)
        for micro in micro_batches(batch, plan, count, self._device):
            logprob_N[micro.index_n] = self._engine.module(micro)[0].float().cpu().numpy()
        return logprob_N

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """`(name, whole tensor)` of every parameter, named as in `module`. Copy what must outlive the next one."""
        return gathered_weights(self.module)

    def save(self, folder: Path) -> None:
        """Write model, optimizer and schedule into `folder`, each rank its part."""
        self._engine.save_checkpoint(str(folder), tag=_TAG, save_latest=False)

    def load(self, folder: Path) -> None:
        """Take up exactly what `save` wrote for the same model and `zero`. Raises UserError if there is nothing."""
        if not (Path(folder) / _TAG).is_dir():
            raise UserError(f"checkpoint {folder} holds no learner state")
        self._engine.load_checkpoint(str(folder), tag=_TAG)

    def close(self) -> None:
        """Let go of the engine and its memory."""
        self._engine.destroy()
        self._reference = None

    def _plan(self, batch: TokenBatch, chosen: np.ndarray) -> list[Planned]:
        return plan_micro_batches(batch, chosen, self._section.micro_batch_tokens, self._share_prompts)

    def _agree(
        self, batch: TokenBatch, minibatches: list[np.ndarray], plans: list[list[Planned]]
    ) -> tuple[int, list[int], list[int]]:
        """What all ranks must know alike: number of turns, loss tokens and micro-batches of each minibatch."""
        turns = int(batch.turn_N.max(initial=1))
        loss_tokens_B = np.diff(np.r_[0, batch.loss_mask_N.cumsum()][batch.offsets_B1])
        tokens_M = [int(loss_tokens_B[chosen].sum()) for chosen in minibatches]
        counts_M = [len(plan) for plan in plans]
        if self._world == 1:
            return turns, tokens_M, counts_M
        most = torch.tensor([turns, *counts_M], device=self._device)
        total = torch.tensor(tokens_M, device=self._device)
        torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
        torch.distributed.all_reduce(total)
        turns, *counts_M = most.tolist()
        return turns, total.tolist(), counts_M

    def _accumulate(
        self, batch: TokenBatch, plan: list[Planned], count: int, tokens: int, tally: Tally, *, untouched: bool
    ) -> None:
        """Gradient of one minibatch's loss, one micro-batch after the other."""
        for number, micro in enumerate(micro_batches(batch, plan, count, self._device), start=1):
            self._engine.set_gradient_accumulation_boundary(number == count)
            loss_n = self._losses(micro, tally, untouched=untouched)
            # DeepSpeed averages gradients over ranks; the loss is a sum over them.
            self._engine.backward(loss_n.sum() * (self._world / tokens))

    def _losses(self, micro: MicroBatch, tally: Tally, *, untouched: bool) -> Tensor:
        exact = self._section.kl == "exact"
        logprob_n, entropy_n, kl_n = self._engine(micro, self._reference if exact else None)
        if self._reference is not None and not exact:
            kl_n = kl_k3(logprob_n, self._reference.logprobs(micro))
        policy_loss_n, clipped_n = policy_loss(
            logprob_n, micro.sampler_logprob_n, micro.advantage_n, self._section.clip
        )
        loss_n = policy_loss_n + micro.kl_weight_n * kl_n
        tally.add(
            micro,
            logprob_n=logprob_n,
            loss_n=loss_n,
            policy_loss_n=policy_loss_n,
            kl_n=kl_n,
            entropy_n=entropy_n,
            clipped_n=clipped_n,
            untouched=untouched,
        )
        return loss_n

"""Supervised steps by TRL's SFTTrainer on rows of `input_ids` and `labels`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from rlcore.policy import Policy
from rlcore.sft.master_weights import MasterAdamW

IGNORED = -100
"""Label of a token that is not learned, as transformers has it."""
Row = dict[str, list[int]]
"""`input_ids` and `labels` of one conversation, equally long."""


@dataclass(frozen=True, slots=True)
class SftSchedule:
    """Optimizer steps, conversations in each, and a learning rate that warms up, stays constant and decays."""

    steps: int
    batch: int
    lr: float
    warmup_steps: int = 0
    decay: float = 0.0
    """Fraction of the steps, at the end, over which the rate falls linearly."""
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0


def train_supervised(
    policy: Policy,
    rows: Sequence[Row],
    schedule: SftSchedule,
    folder: Path,
    *,
    seed: int,
    world: int = 1,
    rows_at_once: int | None = None,
    on_step: Callable[[int], object] | None = None,
) -> float:
    """Trains the policy in place and returns the mean loss per learned token.

    Each of `world` processes passes `rows_at_once` through the model together, its whole part of the batch by default;
    the batch must divide into them. `on_step` is called at each optimizer step; without it TRL shows its progress.
    A policy in half precision is learned in float32 copies of its weights (`MasterAdamW`).
    """
    at_once = schedule.batch // world if rows_at_once is None else rows_at_once
    settings = SFTConfig(
        output_dir=str(folder),
        max_steps=schedule.steps,
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=schedule.batch // (at_once * world),
        learning_rate=schedule.lr,
        adam_beta1=schedule.betas[0],
        adam_beta2=schedule.betas[1],
        weight_decay=schedule.weight_decay,
        max_grad_norm=schedule.max_grad_norm,
        warmup_steps=schedule.warmup_steps,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={"num_decay_steps": round(schedule.decay * schedule.steps), "decay_type": "linear"},
        bf16=False,
        use_cpu=policy.model.device.type == "cpu",  # without it accelerate joins no ranks but those on GPUs
        gradient_checkpointing=at_once < schedule.batch // world,
        seed=seed,
        logging_steps=50,
        logging_strategy="no" if on_step else "steps",
        disable_tqdm=on_step is not None,
        max_length=None,
        dataloader_pin_memory=False,
        save_strategy="no",
        report_to="none",
    )
    table = datasets.Dataset.from_list(list(rows))
    trainer = SFTTrainer(
        policy.model,
        args=settings,
        train_dataset=table,
        processing_class=policy.tokenizer,
        optimizer_cls_and_kwargs=None if policy.model.dtype == torch.float32 else _master(settings, world),
    )
    if on_step:
        trainer.add_callback(_Steps(on_step))
        trainer.remove_callback(PrinterCallback)
    return float(trainer.train().training_loss)


def _master(settings: SFTConfig, world: int) -> tuple[type[MasterAdamW], dict[str, Any]]:
    betas = settings.adam_beta1, settings.adam_beta2
    return MasterAdamW, {"lr": settings.learning_rate, "betas": betas, "rank": settings.process_index, "world": world}


class _Steps(TrainerCallback):
    """Calls back at each optimizer step."""

    def __init__(self, on_step: Callable[[int], object]) -> None:
        self._on_step = on_step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._on_step(1)

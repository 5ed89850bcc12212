"""DeepSpeed: its settings, its engine around the policy, and one guarded optimizer step."""

import io
import math
from contextlib import redirect_stdout
from typing import Any

import torch
from torch import nn

from rlcore.errors import UserError
from rlcore.learner.zero.further_settings import with_further
from rlcore.recipe.schema import LearnerConfig

LOSS_SCALE = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")
"""What changes in DeepSpeed's scaler of the loss."""


def start_engine(section: LearnerConfig, settings: dict[str, Any], module: nn.Module, total_steps: int) -> Any:
    """A `DeepSpeedEngine` that trains `module` with Adam over `total_steps`. The process group must exist.

    `settings` are those of `engine_settings`. With ZeRO-3 the module may lie on the CPU: no device ever holds it whole.
    """
    import deepspeed  # takes seconds; only processes that train need it

    if settings["zero_optimization"]["stage"] == 3:
        split_parameters(module, settings)
    with redirect_stdout(io.StringIO()):  # it prints the memory in use
        engine, *_ = deepspeed.initialize(
            model=module,
            model_parameters=trained_parameters(module),
            config=settings,
            lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.LambdaLR(
                optimizer, LearningRate(section, total_steps)
            ),
            dist_init_required=False,
        )
    return engine


def split_parameters(module: nn.Module, settings: dict[str, Any]) -> None:
    """Moves one parameter after the other to the device, of which each rank keeps its part (ZeRO-3)."""
    import deepspeed  # takes seconds
    from deepspeed.accelerator import get_accelerator

    deepspeed.zero.Init(module=module, config_dict_or_path=settings)
    for buffer in module.buffers():
        buffer.data = buffer.data.to(get_accelerator().current_device_name())


def trained_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Those that are not frozen."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


class LearningRate:
    """Share of the full learning rate at an optimizer step, counted from 0: linear warm-up, constant, linear decay."""

    def __init__(self, section: LearnerConfig, total_steps: int) -> None:
        self._warmup = section.warmup_steps
        self._decay = section.decay * total_steps
        self._total = total_steps

    def __call__(self, step: int) -> float:
        rise = (step + 1) / self._warmup if self._warmup else 1.0
        fall = (self._total - step) / self._decay if self._decay else 1.0
        return max(0.0, min(1.0, rise, fall))


def set_schedule(engine: Any, step: int) -> None:
    """Puts the learning rate where it is after `step` steps."""
    scheduler = engine.lr_scheduler
    scheduler.last_epoch = step
    for group, base, fraction in zip(
        scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True
    ):
        group["lr"] = base * fraction(step)


def engine_settings(section: LearnerConfig, module: nn.Module, device: torch.device) -> dict[str, Any]:
    """The DeepSpeed configuration of a recipe; what `section.deepspeed` says wins (see `with_further`).

    Micro-batches vary in number and size, so DeepSpeed is configured for one a step, and `Learner` marks the last one
    itself. In half precision, master weights, accumulated gradients and reductions are float32, which DeepSpeed offers
    from ZeRO-1 on: stage 0 becomes stage 1. With float16 it scales the loss, as high as gradients stay finite. Raises
    UserError where the device does not compute in float16.
    """
    parameters = trained_parameters(module)
    dtype = parameters[0].dtype
    if dtype == torch.float16:
        from deepspeed.accelerator import get_accelerator

        if not get_accelerator().is_fp16_supported():
            raise UserError("model.dtype float16: DeepSpeed trains it on CUDA alone; take bfloat16 or float32")
    stage = max(section.zero, int(dtype != torch.float32))
    host = {"device": "cpu", "pin_memory": device.type == "cuda"}
    settings = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "steps_per_print": None,
        "gradient_clipping": section.max_grad_norm if stage else 0.0,  # `guarded_step` clips without ZeRO
        "bf16": {"enabled": dtype == torch.bfloat16, "check_grad_overflow": True},
        "fp16": {"enabled": dtype == torch.float16},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": section.lr,
                "betas": list(section.betas),
                "weight_decay": section.weight_decay,
                "torch_adam": True,
                "fused": True,
            },
        },
        "zero_optimization": {
            "stage": stage,
            "reduce_bucket_size": min(sum(parameter.numel() for parameter in parameters), 500_000_000),
            **({"offload_optimizer": host} if "optimizer" in section.offload else {}),
            **({"offload_param": host} if "parameters" in section.offload else {}),
        },
    }
    return with_further(settings, section.deepspeed)


def loss_scale(engine: Any) -> dict[str, float]:
    """Where the search for the highest loss scale has come to; empty where the loss is not scaled."""
    scaler = getattr(engine.optimizer, "loss_scaler", None)
    return {name: getattr(scaler, name) for name in LOSS_SCALE} if getattr(scaler, "dynamic", False) else {}


def set_loss_scale(engine: Any, found: dict[str, float]) -> None:
    """Goes on with the search from there, if the loss is scaled."""
    if loss_scale(engine):
        vars(engine.optimizer.loss_scaler).update(found)


def guarded_step(engine: Any, max_grad_norm: float) -> tuple[float, bool]:
    """Clip and apply the accumulated gradient, unless its norm is not finite.

    Returns the norm before clipping (of the gradient over all ranks) and whether the step was applied.
    """
    if not isinstance(engine.optimizer, torch.optim.Optimizer):
        engine.step()
        applied = engine.was_step_applied()
        if not applied and getattr(engine.optimizer, "cpu_offload", False):
            # ZeRO 1 and 2 would add the next gradients to those of the step that was skipped.
            kept = getattr(engine.optimizer, "averaged_gradients", {})
            kept.update(dict.fromkeys(kept))
        return float(engine.get_global_grad_norm()), applied
    # Without ZeRO and bf16, DeepSpeed runs the plain optimizer: it neither reports the norm nor guards the step.
    norm = nn.utils.clip_grad_norm_(engine.module.parameters(), max_grad_norm).item()
    if not math.isfinite(norm):
        engine.zero_grad()
        return norm, False
    engine.step()
    return norm, True

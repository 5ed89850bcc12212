"""Training a small policy from scratch on demonstrations, by TRL's SFTTrainer."""

from pathlib import Path

import torch
from transformers import set_seed

from rlcore.data import load_problems
from rlcore.data.sources.arithmetic import Options, phrases
from rlcore.files import holding
from rlcore.policy import Policy, phrase_tokenizer, save_policy
from rlcore.policy.scratch import scratch_model
from rlcore.rollout import Conversation
from rlcore.sft.demonstrations import demonstrations
from rlcore.sft.schema import WarmStart
from rlcore.sft.trainer import SftSchedule, train_supervised

WARMUP_STEPS = 100


def warm_start(section: WarmStart) -> Path:
    """Creates the policy, trains it phase by phase and writes it as a Hugging Face folder, which is returned.

    Raises UserError if the folder cannot be written or another process is using it, and for unknown options of the
    data's source.
    """
    folder = Path(section.output)
    with holding(folder):
        _make(section, folder)
    return folder


def _make(section: WarmStart, folder: Path) -> None:
    set_seed(section.seed)
    problems = load_problems(section.data)
    options = Options.model_validate(section.data.options)
    words = phrases(options.letters, options.max_number)
    tokenizer = phrase_tokenizer([*words, f" {section.conversation.instruction}"])
    model = scratch_model(section.sizes, tokenizer, section.seed)
    policy = Policy(torch.nn.Module.to(model, "cuda" if torch.cuda.is_available() else "cpu"), tokenizer)
    conversation = Conversation(tokenizer, section.conversation, [tokenizer.eos_token_id])
    for phase in section.phases:
        rows = demonstrations(problems, conversation, phase, phase.steps * section.batch, section.seed)
        print(f"{phase.name}: {phase.steps} steps of {section.batch} conversations")
        warmup = min(WARMUP_STEPS, phase.steps // 2)
        schedule = SftSchedule(phase.steps, section.batch, phase.lr, warmup, phase.decay)
        train_supervised(policy, list(rows), schedule, folder, seed=section.seed)
    save_policy(policy, folder)

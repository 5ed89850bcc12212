"""Training a small policy from scratch on demonstrations, by TRL's SFTTrainer."""

from pathlib import Path

import datasets
from transformers import set_seed
from trl import SFTConfig, SFTTrainer

from rlcore.data import load_problems
from rlcore.data.sources.arithmetic import Options, phrases
from rlcore.policy import Policy, phrase_tokenizer, save_policy
from rlcore.policy.scratch import scratch_model
from rlcore.rollout import Conversation
from rlcore.sft.demonstrations import demonstrations
from rlcore.sft.schema import Phase, WarmStart

WARMUP_STEPS = 100


def warm_start(section: WarmStart) -> Path:
    """Makes the policy, trains it phase by phase and writes it as a Hugging Face folder, which is returned."""
    set_seed(section.seed)
    problems = load_problems(section.data)
    options = Options.model_validate(section.data.options)
    words = phrases(options.letters, options.max_number)
    tokenizer = phrase_tokenizer([*words, f" {section.conversation.instruction}"])
    policy = Policy(scratch_model(section.sizes, tokenizer, section.seed), tokenizer)
    conversation = Conversation(tokenizer, section.conversation, [tokenizer.eos_token_id])
    for phase in section.phases:
        rows = demonstrations(problems, conversation, phase, phase.steps * section.batch, section.seed)
        print(f"{phase.name}: {phase.steps} steps of {section.batch} conversations")
        _train(policy, datasets.Dataset.from_list(list(rows)), phase, section)
    folder = Path(section.output)
    save_policy(policy, folder)
    return folder


def _train(policy: Policy, rows: datasets.Dataset, phase: Phase, section: WarmStart) -> None:
    settings = SFTConfig(
        output_dir=str(Path(section.output)),
        max_steps=phase.steps,
        per_device_train_batch_size=section.batch,
        learning_rate=phase.lr,
        adam_beta2=0.98,
        weight_decay=0.01,
        warmup_steps=min(WARMUP_STEPS, phase.steps // 2),
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={"num_decay_steps": round(phase.decay * phase.steps), "decay_type": "linear"},
        bf16=False,
        gradient_checkpointing=False,
        seed=section.seed,
        logging_steps=50,
        max_length=None,
        dataloader_pin_memory=False,
        save_strategy="no",
        report_to="none",
    )
    SFTTrainer(policy.model, args=settings, train_dataset=rows, processing_class=policy.tokenizer).train()

"""What two ranks that hold one vLLM engine find: `torchrun ... -m tests.rollout.vllm.tensor_parallel_ranks FOLDER`."""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from transformers import Qwen2ForCausalLM

from rlcore.learner.zero.weights import gathered_adapters
from rlcore.policy.lora import add_lora
from rlcore.ranks import Ranks, start_distributed
from rlcore.recipe.schema import LoraConfig, RolloutConfig
from rlcore.rollout import Sample, Sampling
from rlcore.rollout.stopping import StopTexts
from rlcore.rollout.vllm.tensor_parallel import TensorParallelEngine
from rlcore.session.interrupt import Interrupt, Stopped
from tests.rollout.vllm.test_vllm_in_process import (
    PROMPT,
    STOP,
    TOKENIZER,
    learners_logprobs,
    publish,
    random_model,
    samples,
)

GREEDY = Sampling(16, temperature=0)


def main(folder: Path) -> None:
    ranks = start_distributed("cpu")
    model = random_model(heads=2, tie=False)
    found = {}
    for lora in (None, LoraConfig(rank=4, alpha=8)):
        engine = started(model, lora)
        if lora:
            found |= adapters(model, engine, lora)
        else:
            found |= (
                requests(model, engine, ranks)
                | stop_texts(engine, ranks)
                | publications(model, engine)
                | leaving(engine, ranks)
                | parting(engine, ranks)
            )
        engine.close()
    (folder / f"{ranks.rank}.json").write_text(json.dumps(found))


def started(model: Qwen2ForCausalLM, lora: LoraConfig | None) -> TensorParallelEngine:
    section = {"tensor_parallel": 2, "args": {"kv_cache_memory_bytes": 1 << 26}}
    settings = RolloutConfig.model_validate({"engine": "vllm", "slots": 32, "stop": ["Quest"], "vllm": section})
    return TensorParallelEngine(settings, model, None, stop_ids=[STOP], max_tokens=256, lora=lora, tokenizer=TOKENIZER)


def requests(model: Qwen2ForCausalLM, engine: TensorParallelEngine, ranks: Ranks) -> dict[str, object]:
    """Rank 1 asks for more, and more often, than rank 0, and once for what the engine refuses."""
    mine = [PROMPT[:n] for n in ((5, 33) if ranks.rank == 0 else (1, 32, 70))]
    refused = ""
    with engine.together():
        answers = samples(engine, mine, GREEDY)
        if ranks.rank == 1:
            mine.append([3] * 64)
            answers += samples(engine, mine[-1:], GREEDY)
            try:
                samples(engine, [[3] * 257], GREEDY)
            except Exception as error:
                refused = str(error)
    with engine.together():
        drawn = samples(engine, [PROMPT] * 4, Sampling(16), seed=ranks.rank)
    return {
        "greedy": [
            answer.ids == greedy(model, ids, len(answer.ids)) for ids, answer in zip(mine, answers, strict=True)
        ],
        "differences": [difference(model, ids, answer) for ids, answer in zip(mine, answers, strict=True)],
        "differences drawn": [difference(model, PROMPT, answer) for answer in drawn],
        "drawn": [answer.ids for answer in drawn],
        "refused": refused,
    }


def stop_texts(engine: TensorParallelEngine, ranks: Ranks) -> dict[str, object]:
    """Each rank's reply ends at a text of its own, and where it would have ended had its text been cut afterwards."""
    with engine.together():
        (plain,) = samples(engine, [PROMPT], Sampling(60), seed=ranks.rank)
    said = TOKENIZER.decode(plain.ids[10:])
    stop = StopTexts([next(letter for letter in said if letter.isascii() and letter.isprintable())], TOKENIZER.decode)
    with engine.together():
        (stopped,) = samples(engine, [PROMPT], Sampling(60, stop=stop), seed=ranks.rank)
    expected = plain.stopped_after(stop.end(plain.ids))
    apart = [abs(mine - theirs) for mine, theirs in zip(stopped.logprobs, expected.logprobs, strict=True)]
    return {
        "stopped": (stopped.ids, stopped.finish) == (expected.ids, expected.finish) and max(apart) < 1e-4,
        "stopped early": len(plain.ids) - len(stopped.ids),
    }


def publications(model: Qwen2ForCausalLM, engine: TensorParallelEngine) -> dict[str, object]:
    """Each parameter is changed and published alone: the differences with the weights before it, and with its own."""
    differences = {}
    for version, (name, parameter) in enumerate(model.named_parameters(), start=1):
        before = one(engine)
        with torch.no_grad():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(version))
        engine.sleep()
        publish(model, engine, version)
        differences[name] = difference(model, PROMPT, before), difference(model, PROMPT, one(engine))
    return {"published": differences}


def adapters(model: Qwen2ForCausalLM, engine: TensorParallelEngine, lora: LoraConfig) -> dict[str, object]:
    add_lora(model, lora, seed=0)
    torch.manual_seed(0)
    with torch.no_grad():
        for _, parameter in gathered_adapters(model):
            parameter.normal_(std=0.2)
    before = difference(model, PROMPT, one(engine))
    engine.publish(gathered_adapters(model), 1)
    return {"adapters": (before, difference(model, PROMPT, one(engine)))}


def leaving(engine: TensorParallelEngine, ranks: Ranks) -> dict[str, object]:
    """Rank 1 leaves by an error, then as it is asked to stop, while rank 0 samples."""
    ended = []
    for stop in (False, True):
        try:
            with Interrupt(ranks) as interrupt, interrupt.nothing_to_save(), engine.together():
                if ranks.rank == 1 and not stop:
                    raise ValueError("no such reward")
                if ranks.rank == 1:
                    os.kill(os.getpid(), signal.SIGTERM)
                samples(engine, [PROMPT], GREEDY)
        except (RuntimeError, ValueError, Stopped) as error:
            ended.append(f"{type(error).__name__}: {error}")
    return {"ended": ended, "after": len(one(engine).ids)}


def parting(engine: TensorParallelEngine, ranks: Ranks) -> dict[str, object]:
    """As if a kernel gave each rank other results: the same requests draw other tokens on rank 1."""
    take = engine._take
    engine._take = lambda name, ids, settings: take(name, ids, settings | {"seed": settings["seed"] + ranks.rank})
    try:
        one(engine)
    except RuntimeError as error:
        return {"parted": str(error)}
    return {}


def one(engine: TensorParallelEngine) -> Sample:
    with engine.together():
        return samples(engine, [PROMPT], Sampling(4))[0]


def greedy(model: Qwen2ForCausalLM, ids: list[int], tokens: int) -> tuple[int, ...]:
    answer = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=tokens, eos_token_id=STOP)
    return tuple(answer[0, len(ids) :].tolist())


def difference(model: Qwen2ForCausalLM, ids: list[int], sample: Sample) -> float:
    """The largest difference between the log-probabilities of the sampler and the learner's."""
    learners = learners_logprobs(model, ids, sample, 1)
    return max(abs(mine - theirs) for mine, theirs in zip(sample.logprobs, learners, strict=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

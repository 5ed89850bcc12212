"""Greedy answers of a saved policy by vLLM alone, held against those of transformers."""

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.processes import python

ASK = Path(__file__).with_name("ask.py")
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}


def answers_in_vllm_are_those_of_transformers(folder: Path, questions: list[str]) -> None:
    done = python(ASK, folder, *questions, env=ENVIRONMENT, vllm=True)
    assert done.returncode == 0, done.stderr[-3000:]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for question, answer in zip(questions, json.loads(done.stdout.splitlines()[-1]), strict=True):
        talk = [{"role": "user", "content": question}]
        asked = tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        settings = {"do_sample": False, "max_new_tokens": 16, "repetition_penalty": 1.0}
        greedy = model.generate(**asked, **settings)[0, asked["input_ids"].shape[1] :].tolist()
        assert len(answer) > 1
        assert answer == greedy

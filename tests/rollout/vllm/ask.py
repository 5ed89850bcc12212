"""Greedy answers by vLLM alone to questions put through the chat template: `ask.py FOLDER QUESTION...` prints ids."""

import json
import sys

from vllm import LLM, SamplingParams

if __name__ == "__main__":
    folder, *questions = sys.argv[1:]
    model = LLM(folder, dtype="float32", enforce_eager=True, max_model_len=128)
    talks = [[{"role": "user", "content": question}] for question in questions]
    answers = model.chat(talks, SamplingParams(temperature=0, max_tokens=16), use_tqdm=False)
    print(json.dumps([list(answer.outputs[0].token_ids) for answer in answers]))

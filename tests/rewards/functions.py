"""Reward functions as users write them, good and bad; the tests name them by this file's path."""

import asyncio
import os
import time

SIDE_EFFECTS: list[str] = []


def length(completions, **columns):
    return [float(len(text)) for text in completions]


def asks_for_columns(completions, prompts, completion_ids):
    return [float(len(p) + len(ids)) for p, ids in zip(prompts, completion_ids, strict=True)]


async def asynchronous(completions, **columns):
    await asyncio.sleep(0.01)
    return [1.0 if text == "good" else 0.0 for text in completions]


def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return {"score": float(solution_str == ground_truth and data_source == "set")}


def reward_func(queries, prompts, labels):
    return {"rewards": [float(q == p + str(label)) for q, p, label in zip(queries, prompts, labels, strict=True)]}


def by_text(completions, **columns):
    """1 for most texts; some of them are commands to misbehave."""
    for text in completions:
        if text == "hang":
            while True:
                time.sleep(0)
        if text == "exit":
            os._exit(0)
        if text == "raise":
            raise KeyError("no such\nthing")
        if text == "fill":
            bytearray(1 << 40)
        if text == "spawn and hang":
            os.fork()
            while True:
                time.sleep(1)
    return [1.0] * len(completions)


def too_few(completions, **columns):
    return [1.0]


def slow_and_too_few(completions, **columns):
    time.sleep(0.15)
    return [1.0]


def not_a_list(completions, **columns):
    return 1.0


def odd_values(completions, **columns):
    values = {"nan": float("nan"), "text": "1.0", "none": None, "inf": float("inf"), "half": 0.5, "true": True}
    return [values[text] for text in completions]


def sees_chunk(completions, **columns):
    return [float(len(completions))] * len(completions)


def takes_option(completions, factor, **columns):
    return [factor] * len(completions)


PENDING: asyncio.Queue[tuple[str, asyncio.Future[float]]] = asyncio.Queue()
SERVING: list[asyncio.Task[None]] = []


async def asks_a_client(completions, **columns):
    """As a client does that was made once: it answers as long as the loop lives that it was first used in."""

    async def serve():
        while True:
            text, answer = await PENDING.get()
            answer.set_result(float(len(text)))

    if not SERVING:
        SERVING.append(asyncio.create_task(serve()))
    answers = [asyncio.get_running_loop().create_future() for _ in completions]
    for asked in zip(completions, answers, strict=True):
        PENDING.put_nowait(asked)
    return await asyncio.gather(*answers)


def reads_messages(completions, prompts, **columns):
    """As TRL's conversational rewards read them."""
    return [float(c[0]["content"] in p[-1]["content"]) for c, p in zip(completions, prompts, strict=True)]


def reads_texts(completions, prompts, **columns):
    """As TRL's standard rewards read them."""
    return [float(completion in prompt) for completion, prompt in zip(completions, prompts, strict=True)]

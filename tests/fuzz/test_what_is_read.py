"""Seeded cases of what is read before anything runs: recipes, overrides, data rows, templates."""

import copy
import json
from random import Random

import yaml

from rlcore.data import load_problems
from rlcore.policy import load_policy, stop_ids
from rlcore.recipe import batch_arithmetic, dump_recipe, load_recipe, schema
from rlcore.rollout import Conversation
from rlcore.session.build import fitting_problems
from tests.fuzz.mutations import LARGE, SMALL, mutate, override, scramble
from tests.fuzz.survive import command, noted, survive
from tests.rollout.scripted import conversation
from tests.tiny import write_recipe

TEMPLATE = (
    "{% if not messages %}{{ raise_exception('none') }}{% endif %}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
MISREAD = ("message.content[0].text", "message.content.x", "messages[3]", "message | upper", "messages", "1 / 0", "[]")


def test_recipes(tmp_path, resolved):
    def case(rng: Random) -> None:
        values, path = copy.deepcopy(resolved), tmp_path / "case.yaml"
        done = [mutate(values, rng, SMALL + LARGE) for _ in range(rng.randrange(1, 4))]
        path.write_text(yaml.safe_dump(values))
        with noted("; ".join(done)):
            recipe = load_recipe(path)
            batch_arithmetic(recipe, 2)
            if rng.random() < 0.2:  # the slow part
                path.write_text(dump_recipe(recipe))
                assert load_recipe(path) == recipe

    survive(500, case)


def test_recipes_whose_text_is_damaged(tmp_path):
    text = write_recipe(tmp_path).read_bytes()

    def case(rng: Random) -> None:
        (tmp_path / "case.yaml").write_bytes(scramble(text, rng))
        batch_arithmetic(load_recipe(tmp_path / "case.yaml"))

    survive(350, case)


def test_overrides(tmp_path, resolved):
    recipe = write_recipe(tmp_path)

    def case(rng: Random) -> None:
        asked = [override(resolved, rng, SMALL + LARGE) for _ in range(rng.randrange(1, 3))]
        with noted(" ".join(asked)[:200]):
            batch_arithmetic(load_recipe(recipe, asked))

    survive(390, case)


def test_plans(tmp_path, resolved):
    recipe = write_recipe(tmp_path)
    counts, amounts = ("--gpus", "--prompt-tokens", "--response-tokens"), ("--gpu-memory", "--spread")

    def case(rng: Random) -> None:
        asked = override(resolved, rng, SMALL)
        number = f"{rng.choice(counts)}={rng.choice([-1, 0, 1, 7, 10**9])}"
        if rng.random() < 0.4:
            number = f"{rng.choice(amounts)}={rng.choice([-1, 0, 0.5, 1e9, 1e-9, 'inf', 'nan'])}"
        with noted(f"{asked} {number}"):
            command("plan", recipe, number, asked)

    survive(100, case)


def test_data_rows(tmp_path):
    talk, path = conversation(kind="feedback"), tmp_path / "rows.jsonl"
    row = {"id": 1, "prompt": "What is 2 + 3?", "answer": "5", "public_tests": ["assert f(3) == 6"], "domain": "x"}

    def case(rng: Random) -> None:
        rows = [copy.deepcopy(row) for _ in range(3)]
        done = mutate(rows[rng.randrange(3)], rng, SMALL + LARGE)
        text = "".join(json.dumps(r, ensure_ascii=True) + "\n" for r in rows).encode()
        path.write_bytes(scramble(text, rng) if rng.random() < 0.5 else text)
        section = schema.DataConfig(source="jsonl", path=str(path), skip_bad_rows=rng.random() < 0.5)
        with noted(done):
            fitting_problems(talk, load_problems(section, lambda line: None, ["answer"]), lambda line: None)

    survive(400, case)


def test_templates(tmp_path):
    model = load_recipe(write_recipe(tmp_path)).model

    def case(rng: Random) -> None:
        text = TEMPLATE
        for _ in range(rng.randrange(1, 3)):
            text = scramble(text.encode(), rng).decode("utf-8", "replace")
        if rng.random() < 0.3:
            text = TEMPLATE.replace("message['content']", rng.choice(MISREAD))
        with noted(text[:400]):
            policy = load_policy(model.model_copy(update={"chat_template": text}), ["What is 2 + 3?"])
            section = schema.ConversationConfig(kind=rng.choice(["correct", "critique", "feedback"]))
            Conversation(policy.tokenizer, section, stop_ids(policy))

    survive(150, case)

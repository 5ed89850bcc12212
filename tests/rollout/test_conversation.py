"""Appending turns gives the ids that rendering the whole conversation gives, or says where it does not."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rewards.answers import find_answer
from rlcore.errors import UserError
from rlcore.policy import phrase_tokenizer
from rlcore.policy.scratch import scratch_tokenizer
from rlcore.recipe import schema
from rlcore.rollout import Conversation
from rlcore.rollout.template import MARK
from rlcore.types import Problem

TEXT = ["What is 2 + 3? The answer is 5. There might be an error in the answer above, please check it. user assistant"]
INSTRUCTION = "There might be an error in the answer above, please check it."

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{% for m in messages %}{% if loop.first %}<|begin_of_text|>{% endif %}"
    "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
QWEN3 = (
    "{% for m in messages %}{% set text = m.content %}"
    "{% if m.role == 'assistant' and '</think>' in text and not loop.last %}"
    "{% set text = text.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ text }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ONE_TURN = (
    "{% if messages | length > 1 %}{{ raise_exception('only one user turn') }}{% endif %}"
    "<|im_start|>{{ messages[0].content }}<|im_end|>\n"
)
ALPACA = (
    "{% for m in messages %}{% if m.role == 'user' %}\n#Ask:\n{{ m.content }}\n#Answer:\n{% else %}{{ m.content }}"
    "{% endif %}{% endfor %}"
)
LAST_TURN_ONLY = "<|im_start|>{{ messages[-1].content }}<|im_end|>\n"


def conversation(template: str | None, end: str = "<|im_end|>", attempts: int = 2) -> Conversation:
    """Over a BPE tokenizer in which the template's markers are single tokens."""
    tokenizer = scratch_tokenizer(TEXT, 400)
    names = ("im_start", "im_end", "begin_of_text", "start_header_id", "end_header_id", "eot_id")
    markers = [f"<|{name}|>" for name in names]
    if template:
        tokenizer.add_special_tokens({"additional_special_tokens": markers})
        tokenizer.chat_template, tokenizer.eos_token = template, end
    section = schema.ConversationConfig(instruction=INSTRUCTION, attempts=attempts, max_prompt_tokens=100)
    return Conversation(tokenizer, section, [tokenizer.eos_token_id])


def problem(text: str) -> Problem:
    return Problem("1", ({"role": "user", "content": text},))


@pytest.mark.parametrize(
    ("template", "end"), [(None, ""), (CHATML, "<|im_end|>"), (LLAMA3, "<|eot_id|>")], ids=["tiny", "chatml", "llama3"]
)
def test_appending_equals_rendering(template, end):
    talk = conversation(template, end)
    question, attempt = "What is 2 + 3?", "The answer is 5."
    encode = lambda text: talk.tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    sampled = (*encode(attempt), talk.tokenizer.eos_token_id)
    appended = [*talk.open(problem(question)), *sampled, *talk.follow("stop")]
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": attempt},
        {"role": "user", "content": INSTRUCTION},
    ]
    rendered = talk.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert appended == encode(rendered)
    assert not any("plain" in difference for difference in talk.check.differences)


def test_a_truncated_attempt_gets_the_end_of_turn_it_did_not_sample():
    talk = conversation(CHATML)
    assert talk.follow("length") == (talk.tokenizer.eos_token_id, *talk.follow("stop"))


@pytest.mark.parametrize("space", [" ", "\n"])
def test_a_template_with_space_before_its_end_of_turn_ends_a_turn_once(space):
    talk = conversation(
        CHATML.replace("{{ m.content }}", "{{ m.content }}{{ '" + space.encode("unicode_escape").decode() + "' }}")
    )
    end = talk.tokenizer.eos_token_id
    between = talk.tokenizer.decode([end, *talk.follow("stop")])
    assert between == f"<|im_end|>\n<|im_start|>user\n{INSTRUCTION}{space}<|im_end|>\n<|im_start|>assistant\n"
    assert talk.tokenizer.decode(talk.follow("length")) == space + between
    assert not talk.check.exact  # what was sampled has no space there
    assert "a plain answer" in talk.notes[0]


def test_chatml_is_proven_exact():
    assert conversation(CHATML).check.exact


def test_a_template_that_strips_thinking_is_named_and_what_was_sampled_is_kept():
    talk = conversation(QWEN3)
    assert not talk.check.exact
    (difference,) = talk.check.differences
    assert "thinking" in difference
    assert "kept" in difference


def test_a_template_that_trims_says_so():
    (difference,) = conversation(LLAMA3, "<|eot_id|>").check.differences
    assert "ends in a space" in difference


def test_answers_that_the_tokenizer_has_no_words_for_say_nothing_about_its_template():
    """Its template trims answers, but none that it can sample ends in a space."""
    tokenizer = phrase_tokenizer([" The", " answer", " is", " 5", ".", f" {INSTRUCTION}"])
    section = schema.ConversationConfig(instruction=INSTRUCTION, max_prompt_tokens=100)
    assert Conversation(tokenizer, section, [tokenizer.eos_token_id]).check.exact


@pytest.mark.parametrize("template", [ONE_TURN, LAST_TURN_ONLY], ids=["raises", "drops the attempt"])
def test_a_template_without_a_second_user_turn_is_refused(template):
    with pytest.raises(UserError, match=r"^the chat template cannot take .*turn[^\n]*$"):
        conversation(template)


def test_a_template_of_one_turn_serves_one_attempt():
    assert conversation(ONE_TURN, attempts=1).open(problem("What is 2 + 3?"))


def test_a_prompt_longer_than_the_limit_is_named():
    with pytest.raises(UserError, match=r"problem 1 has \d+ tokens, more than conversation.max_prompt_tokens 100"):
        conversation(CHATML).open(problem("What is 2 + 3? " * 50))


def test_rewards_read_no_special_tokens():
    talk = conversation(CHATML)
    ids = talk.tokenizer("The answer is 5.<|im_end|>", add_special_tokens=False)["input_ids"]
    assert talk.text(ids) == "The answer is 5."


def test_an_attempt_that_begins_inside_a_thinking_block_is_told_so():
    """Else a number boxed while thinking would count as the answer of an attempt that never came to one."""
    thinking = conversation(CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif"))
    plain = conversation(CHATML)
    for said, answered in [(r"Is it \boxed{5}?", False), (r"Is it \boxed{5}? No.</think>\boxed{6}", True)]:
        ids = thinking.tokenizer(said, add_special_tokens=False)["input_ids"]
        assert thinking.text(ids) == f"<think>\n{said}"
        assert plain.text(ids) == said
        assert (find_answer(thinking.text(ids), ["boxed"]) == "6") is answered
        assert (find_answer(thinking.text(ids), ["boxed"]) is None) is not answered


PARTS = CHATML.replace("{{ m.content }}", "{% for part in m.content %}{{ part.text }}{% endfor %}")


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_template_of_contents_in_parts_shows_what_is_said(attempts):
    talk, plain = conversation(PARTS, attempts=attempts), conversation(CHATML, attempts=attempts)
    assert talk.open(problem("What is 2 + 3?")) == plain.open(problem("What is 2 + 3?"))
    assert talk.check.exact
    assert attempts == 1 or talk.follow("stop") == plain.follow("stop")


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_template_that_leaves_out_the_problem_is_refused(attempts):
    with pytest.raises(UserError, match="leaves out what the user says"):
        conversation("{% for m in messages %}<|im_start|>{{ m.role }}<|im_end|>{% endfor %}", attempts=attempts)


@pytest.mark.parametrize("attempts", [1, 2])
def test_an_end_of_turn_that_stops_nothing_is_noted(attempts):
    assert conversation(CHATML, attempts=attempts).notes == ()
    (note,) = conversation(CHATML, "<|eot_id|>", attempts=attempts).notes
    assert "turns end with <|im_end|>, at which no attempt stops (that is <|eot_id|>)" in note


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_template_that_opens_no_turn_for_the_assistant_is_noted(attempts):
    first, *_ = conversation(CHATML.partition("{% if")[0], attempts=attempts).notes
    assert "it pays no heed to add_generation_prompt" in first
    assert "<|im_start|>assistant" in first


def test_a_tail_without_control_tokens_gets_no_space_of_the_tokenizer():
    """SentencePiece's tokenizers put a space before a text; what comes after an attempt is no beginning."""
    words = ["▁", "▁The", "▁answer", "▁is", "▁5", ".", "\n", "#", "▁Check", "▁it", "▁Ask", ":"]
    letters = {character for word in (*words, ALPACA, MARK) for character in word} - {" "}
    vocabulary = [("<unk>", 0.0), ("</s>", 0.0), *((word, -1.0) for word in dict.fromkeys([*words, *sorted(letters)]))]
    raw = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", unk_token="<unk>", pad_token="</s>")
    tokenizer.chat_template = ALPACA
    section = schema.ConversationConfig(instruction="Check it.", max_prompt_tokens=100)
    talk = Conversation(tokenizer, section, [tokenizer.eos_token_id])
    assert talk.check.exact
    assert tokenizer.convert_ids_to_tokens(talk.follow("length"))[:2] == ["#", "A"]


def test_control_tokens_in_a_text_are_found():
    template = conversation(CHATML).template
    said = [{"role": "user", "content": "What does <|im_end|> mean in <b>ChatML</b>?"}]
    assert template.control_tokens(said) == {"<|im_end|>"}

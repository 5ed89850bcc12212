"""The small rewards, against numbers worked out by hand."""

import pytest

from rewards import RewardError, RewardPool, Verdict, load_reward, score
from rewards.verdict import combine


def test_format():
    assert load_reward("format")([r"so \boxed{1}", "no", r"<think>\boxed{1}</think>"]) == [1.0, 0.0, 0.0]
    assert load_reward({"name": "format", "kwargs": {"policy": ["hashes"]}})(["#### 4"]) == [1.0]
    with pytest.raises(RewardError, match="boxed, final_answer, hashes"):
        load_reward({"name": "format", "kwargs": {"policy": ["box"]}})(["x"])


def test_format_tells_the_answer_that_it_found_for_votes_without_labels():
    verdicts = score("format", [r"so \boxed{ 1 /2}", "no"])
    assert [(v.status, v.answer) for v in verdicts] == [("correct", "1/2"), ("no_answer", None)]


def test_length_costs_its_share_of_the_longest():
    reward = load_reward({"name": "length", "kwargs": {"max_length": 200}})
    assert reward([""] * 3, completion_ids=[[0] * 50, [0] * 200, [0] * 300]) == [-0.25, -1.0, -1.0]
    parts = {"length": Verdict(-0.25, "wrong"), "math": Verdict(1.0, "correct")}
    kept = combine(parts, {"math": 1.0, "length": 0.2}, ["math"])
    assert (kept.score, kept.status) == (0.95, "correct")
    with pytest.raises(RewardError, match="max_length is 0"):
        load_reward({"name": "length", "kwargs": {"max_length": 0}})([""], completion_ids=[[0]])


def test_overlong_falls_linearly_over_the_buffer():
    reward = load_reward({"name": "overlong", "kwargs": {"max_length": 100, "buffer": 20}})
    ids = [[0] * length for length in (10, 80, 85, 100, 150)]
    assert reward([""] * 5, completion_ids=ids) == [0.0, 0.0, -0.25, -1.0, -1.0]


def test_repetition_counts_ngrams_seen_before():
    reward = load_reward({"name": "repetition", "kwargs": {"ngram": 2, "penalty": 2.0}})
    # "a b a b a": the bigrams ab, ba, ab, ba: 2 of 4 are repeats
    assert reward(["a b a b a", "a b c", "a", ""]) == [-1.0, 0.0, 0.0, 0.0]


def test_language_is_the_share_of_letters():
    assert load_reward("language")(["word 12!", "слово", "abcд", "3 + 4"]) == [1.0, 0.0, 0.75, 1.0]
    assert load_reward({"name": "language", "kwargs": {"script": "han"}})(["数学 math"]) == [pytest.approx(2 / 6)]


def test_what_is_about_form_alone_judges_nothing():
    """A row with a gold answer that cannot be read, one with one, and one that another reward judges."""
    gold = ["\\frac{", "1", ""]
    shaping = [{"name": "format", "weight": 0.1}, {"name": "repetition", "weight": 0.1}]
    with RewardPool([*shaping, "math"], workers=1) as pool:
        verdicts = pool.score([r"\boxed{1}"] * 3, {"answer": gold})
        assert [(v.score, v.status) for v in verdicts] == [
            (None, "unscorable"),
            (1.1, "correct"),
            (None, "unscorable"),
        ]
        assert verdicts[0].detail == "math: the gold answer cannot be read"
    with RewardPool(shaping, workers=1) as pool:  # data without gold answers
        assert pool.score([r"\boxed{1}"], {"answer": [""]})[0].score == pytest.approx(0.1)


def test_rewards_for_different_rows_judge_their_own(tmp_path):
    (tmp_path / "ours.py").write_text(
        "def rhymes(completions, rhyme):\n"
        "    return [r and float(c.endswith(r)) for c, r in zip(completions, rhyme)]\n"
        "def brief(completions, **_):\n    return [float(len(c) < 20) for c in completions]\n"
        "brief.judges = False\n"
    )
    specs = ["math", f"{tmp_path / 'ours.py'}:brief", f"{tmp_path / 'ours.py'}:rhymes"]
    with RewardPool(specs, workers=1) as pool:
        verdicts = pool.score(
            [r"\boxed{1}", "a cat", "a dog", "any"], {"answer": ["1", "", "", ""], "rhyme": [None, "at", "at", None]}
        )
    assert [(v.score, v.status) for v in verdicts] == [
        (2, "correct"),
        (2, "correct"),
        (1, "wrong"),
        (None, "unscorable"),
    ]


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("b and c, because 8 + 5 = 13.", "correct"),
        ("  c and b, because 5 + 8 = 13.", "correct"),
        ("b and d, because 8 + 9 = 17.", "wrong"),
        ("b and b, because", "wrong"),
        ("b and z, because", "wrong"),
        ("I take a and b", "no_answer"),
        ("B and c", "no_answer"),
        ("b and cc", "no_answer"),
        ("", "no_answer"),
    ],
)
def test_pair_sum(text, status):
    numbers = '{"a": 3, "b": 8, "c": 5, "d": 9}'
    verdict = score("pair_sum", [text], numbers=[numbers], target=[13])[0]
    assert (verdict.status, verdict.score) == (status, float(status == "correct"))


def test_combining():
    parts = {"a": Verdict(1.0, "correct", seconds=0.5), "b": Verdict(0.5, "wrong"), "c": Verdict(None, "unscorable")}
    whole = combine(parts, {"a": 1.0, "b": 0.2, "c": 9.0}, "abc")
    assert (whole.score, whole.status, whole.seconds) == (pytest.approx(1.1), "correct", 0.5)
    late = combine({**parts, "d": Verdict(None, "timeout", "too late")}, {"a": 1, "b": 1, "c": 1, "d": 1}, "abcd")
    assert (late.score, late.status, late.detail) == (None, "timeout", "d: too late")
    assert combine({"c": parts["c"]}, {"c": 1.0}, "c").status == "unscorable"

"""Which text of an attempt is the program. Each attempt here is judged by what its program computes."""

import time

import pytest

from rewards.program import find_program

F = "def f(x):\n    return x * x\n"
FENCED = f"```python\n{F}```\n"
SCRIPT = "n = int(input())\nprint(n * n)\n"
PROMPT = "def f(x):\n    '''Square.'''\n"


@pytest.mark.parametrize(
    "text",
    [
        f"```text\na plan\n```\n{FENCED}",
        f"```bash\npip install x\n```\n{FENCED}",
        f'{FENCED}\n```json\n{{"f": 4}}\n```\n',
        FENCED.replace("\n", "\r\n"),
        FENCED.replace("python", "py3"),
        FENCED.replace("python", "Python3"),
        FENCED.replace("python", "{.python}"),
        FENCED.replace("python", "{.python .numberLines}"),
        FENCED.replace("python", 'python title="f.py"'),
        FENCED.replace("python", 'title="f.py"'),
        FENCED.replace("```", "~~~"),
        FENCED.replace("```", "````"),
        "".join(f"  {line}\n" for line in FENCED.splitlines()),
        "1. so:\n\n" + "".join(f"    {line}\n" for line in FENCED.splitlines()),
        "so:\n" + "".join(f"        {line}\n" for line in FENCED.splitlines()),
        "```python\ndef f(x):\n    return x * x```\nThat is it.",
        f"```python\ndef f(x):\n    return x * x```\n```text\n4\n```\n{FENCED}",
        f"Here: ```python\n{F}```",
        "```python\ndef f(x):\n    '''Square.\n\n    ```python\n    f(2)\n    ```\n    '''\n    return x * x\n```",
        f"{FENCED}\nUsage:\n```python\nprint(f(2))\nresult = f(3)\n```",
        f"{FENCED}\nTest:\n```python\nassert f(2) == 4\ndef test_f():\n    assert f(3) == 9\n```",
        f"{FENCED}\nUsage:\n```python\nfrom solution import f\nprint(f(2))\n```",
        f"{FENCED}\nOutput:\n```\n4\n```",
        f"{FENCED}\nOutput:\n```\n>>> f(2)\n4\n```",
        "```python\nimport math\nTWO = 2\n```\nthen\n```python\ndef f(x):\n    return int(math.pow(x, TWO))\n```",
        f"<answer>\n{F}</answer>",
        f"<answer>{F}</answer>",
        f"<answer>```python\n{F}```</answer>",
        f"Here is the function.\n\n{F}",
        f"Here is the function, in short:\n{F}\nIt squares its argument.",
        f"if you ask me:\n{F}",
        f"\ufeff{F}",
        f"```python\n\ufeff{F}```",
        "```python\ndef f(x):\n    return x * x if x != '<think>' else 0\n```",
        "<think>That's it.</think>```python\ndef f(x):\n    return x * x if x not in ('a', '</think>') else 0\n```",
        f"<think>```python\ndef f(x): return 0\n```</think>{FENCED}",
        f"{FENCED}<|endoftext|>",
        f"{FENCED[:-1]}<|im_end|>\n<|endoftext|>",
        f"{F}<|endoftext|>",
        "```python\ndef f(x):\n        return x * x\n    \n    def g(x):\n        return 0\n```",
        "```python\nimport math\n    def f(x):\n        return x * x\n```",
        "```python\n    def f(x):\n        return x * x\n```",
        f'{FENCED}\nOr:\n```python\ndef show(x):\n    """\n    ```\n    16\n    ```\n    """\n    print(f(x))\n```',
        "```python\ndef f(x):\n    return x * x if x != '```' and x != 'a ```python' else 0\n```",
        "Define:\n```python\nfrom operator import mul\n```\n```python\ndef g(x):\n    return mul(x, x)\n```\n"
        "```python\nimport math\nf = g\n```\n```output\n4\n```",
        f"First:\n```python\ndef f(x): return 0\n```\nBetter:\n{FENCED}",
        f"{FENCED}\nThe signature is:\n```python\ndef f(x):\n    ...\n```",
        f"{FENCED}\nThe signature is:\n```python\ndef f(x):\n    '''Square.'''\n    pass\n```",
        "```python\ndef f(x):\n    return x * x\n\n\ndef g(x):\n    if x >",
    ],
)
def test_program_that_defines_what_is_asked_for(text):
    names: dict = {}
    exec(find_program(text, {"f"}), names)
    assert [names["f"](n) for n in (2, 3, 5)] == [4, 9, 25]


@pytest.mark.parametrize(
    "text",
    [
        "    return x * x\n",
        "    return x * x\n```\n\nThis works.\n",
        "    return x * x\n\nIt doesn't need more.\n",
        "    return x * x\n\n\ndef g(x):\n    if x >",
        "    return x * x\n\nprint(f(1))\nprint(f(2",
        "    return x * x\n\nif __name__ == '__main__':\n    print(f(1))\n    print(f(",
        "    return x * x\n\nclass Test:\n    pass\n\nf(",
        "return x * x\n",
        "y = x * x\n    return y",
        "for y in [x]:\n        return y * y\n",
        "```python\n    return x * x\n```",
        "```python\nreturn x * x\n```\n```\nassert f(2) == 4\n```",
        "```python\nreturn x * x\n```\n```python\ndef test():\n    assert f(2) == 4\n```",
        FENCED,
    ],
)
def test_program_that_continues_a_prompt(text):
    names: dict = {}
    source = find_program(text, {"f"}, PROMPT)
    exec(source if source.startswith("def") else PROMPT + source, names)
    assert [names["f"](n) for n in (2, 3, 5)] == [4, 9, 25]


@pytest.mark.parametrize(
    "text",
    [
        f"```python\n{SCRIPT}```",
        f"Input:\n```\n3\n```\n```python\n{SCRIPT}```\nOutput:\n```\n9\n```",
        f"```python\n{SCRIPT}```\nTry it:\n```python\nprint(n)\n```",
        "```python\ndef read():\n    return int(input())\n```\n```python\nn = read()\nprint(n * n)\n```",
        "```python\ndef main():\n    n = int(input())\n    print(n * n)\n```\n```python\nmain()\n```",
        f"The program is this:\n\n{SCRIPT}",
    ],
)
def test_script_that_reads_standard_input(text, capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda: "3")
    exec(find_program(text), {})
    assert capsys.readouterr().out == "9\n"


def test_a_class_whose_methods_do_nothing_is_no_later_version():
    right = "class Solution:\n    def f(self, x):\n        return x * x"
    stub = "class Solution:\n    def f(self, x): ..."
    assert find_program(f"```python\n{right}\n```\n```python\n{stub}\n```", {"Solution"}) == right
    assert find_program(f"```python\n{stub}\n```", {"Solution"}) == stub


def test_a_thought_that_does_not_end_hides_its_program():
    assert find_program(f"<think>{FENCED}", {"f"}).strip() == ""


def test_a_program_that_fits_nothing_is_still_the_last():
    assert find_program("```python\ndef f(x) return\n```", {"f"}) == "def f(x) return"
    assert find_program("```python\n```", {"f"}) == ""


@pytest.mark.parametrize(
    "text",
    [
        " " * 60_000,
        "```" + " " * 60_000 + "x",
        "```python\n" + " " * 60_000,
        "`" * 60_000,
        "```\n" * 8_000,
        "> " * 30_000,
        "- " * 30_000,
        "1. " * 20_000,
        "<think>" * 10_000,
        "<|endoftext|>" * 5_000,
        "[BEGIN]" * 9_000,
        "<answer>" * 8_000,
        "def f(x):\n" * 6_000,
        "'" * 60_000,
        "(" * 60_000,
        "```\nx\n```\n" * 3_000,
        "x\n" * 30_000 + FENCED,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_hostile_text_does_not_take_square_time(text):
    began = time.process_time()
    find_program(text, {"f"}, PROMPT)
    find_program(text)
    assert time.process_time() - began < 30  # it takes about 1; square time would be minutes

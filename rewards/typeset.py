r"""One way of typesetting: answers in LaTeX, Unicode or plain text, brought to the same LaTeX."""

from __future__ import annotations

import re
from typing import Any

_UNICODE = str.maketrans({"−": "-", "–": "-", "×": "\\times ", "·": "\\cdot ", "÷": "\\div ", "∞": "\\infty ",
                          "∅": "\\emptyset ", "°": "^\\circ ", "π": "\\pi ", "∪": "\\cup ",
                          "\u00a0": " ", "\u202f": " ", "²": "^2", "³": "^3", "½": "\\frac{1}{2}", "∈": "\\in ",
                          "¼": "\\frac{1}{4}", "¾": "\\frac{3}{4}", "⅓": "\\frac{1}{3}", "⅔": "\\frac{2}{3}",
                          "≤": "\\le ", "≥": "\\ge ", "ℝ": "\\mathbb{R}", "⟨": "(", "⟩": ")", "…": "...",
                          "“": '"', "”": '"', "‘": "'", "’": "'",
                          **{chr(0xFEE0 + code): chr(code) for code in range(0x21, 0x7F)}})  # fmt: skip
_FUNCTIONS = "sin|cos|tan|cot|csc|arcsin|arccos|arctan|sinh|cosh|tanh|log|ln"
_FONTS = "textbf|textit|textrm|textsf|texttt|textsc|textnormal|emph|mathrm|mathbf|mathtt"  # of words
_TH = "(?:st|nd|rd|th)"
_CELLS = r"\\begin\{matrix\}((?:(?!\\begin|\\end).)*)\\end\{matrix\}"
_COMMANDS = {
    name: new
    for names, new in {
        "dfrac tfrac cfrac": "\\frac", "varnothing": "\\emptyset", "infin inf": "\\infty", "deg degree": "^\\circ",
        "le leq leqslant": "\\le ", "ge geq geqslant": "\\ge ", "lt": "<", "gt": ">", "lbrace": "\\{", "rbrace": "\\}",
        "langle": "(", "rangle": ")", "mid vert lvert rvert": "|", "dots ldots cdots": "...",
        "quad qquad thinspace medspace thickspace": " ",
    }.items()
    for name in names.split()
}  # fmt: skip


def _renamed(command: re.Match[str]) -> str:
    new = _COMMANDS.get(command[1])
    return command[0] if new is None else new + command[2] if new[-1].isalpha() else new


_REWRITES: list[tuple[re.Pattern[str], Any]] = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        # two stars around all of the answer are Markdown's bold, any others are Python's power
        (r"(?s)^\s*\*\*((?:(?!\*\*).)+)\*\*(\s*\.?\s*)$", r"\1\2"),
        (r"\*\*\s*(-?\d+|[a-zA-Z])", r"^{\1}"),
        (r"\*\*", "^"),
        # the root sign covers the whole number after it; LaTeX's command, one digit
        (r"√\s*(\d+(?:\.\d+)?)", r"\\sqrt{\1}"),
        (r"√", r"\\sqrt "),
        # some models write the backslashes of JSON; where no row of a matrix can end, they are no line breaks
        (r"(?s)\\\\(?=[a-zA-Z]{2})(?!.*\\end)", r"\\"),
        (r"\\(?:boxed|fbox)\s*(?=\{)", ""),
        (r"\\\\\s*\[\s*-?[\d.]+\s*(?:pt|em|ex|mm|cm)\s*\]", r"\\\\"),
        # a lone dollar before a number is money, two of them hold a formula
        (r"^(\s*-?\s*)\$(?=\s*-?\d[\d.,]*(?:[ /][a-zA-Z /]+)?\.?\s*$)", r"\1\\$"),
        (r"(?<!\\)\\[\[\]()]|(?<!\\)\$", " "),
        (r"\\text\s*\{\s*(\\\$|[€£¥¢])\s*\}", r"\1"),
        (r"\\(?:left|right|bigl|bigr|Bigl|Bigr|big|Big|displaystyle|limits)(?![a-zA-Z])\.?", ""),
        (r"\\([a-zA-Z]+)(\s*)", _renamed),
        (r"\{\s*(?:(\d+)|\{(\d+)\})\s*\\choose(?![a-zA-Z])\s*(?:(\d+)|\{(\d+)\})\s*\}", r"\\binom{\1\2}{\3\4}"),
        (r"^\s*([\d.,]+)\s*(?:to|\\text\s*\{\s*to\s*\})\s*([\d.,]+)\s*$", r"\1:\2"),
        (r"<=\s*", r"\\le "),
        (r">=\s*", r"\\ge "),
        (r"\\(?:mathbb|Bbb)\s*\{?\s*([A-Z])\s*\}?", r"\\mathbb{\1}"),
        (r"\\(?:mathrm|operatorname\*?|text)\s*\{\s*([ei])\s*\}", r"\1"),
        (rf"\\(?:mathrm|operatorname\*?|text)\s*\{{\s*({_FUNCTIONS})\s*\}}", r"\\\1 "),
        (rf"\\(?:text|mbox|operatorname|{_FONTS})\s*\{{", r"\\text{"),
        (r"^\\text\{\s*(-?\d[\d.,]*)\s*\}", r"\1 "),  # a number in a font of its own
        # the third; a third power or a ninth root is another number
        (
            rf"(?<=\d)\s*(?:\^?\s*\{{?\s*\\text\{{\s*{_TH}\s*\}}\s*\}}?|\^\{{{_TH}\}}|{_TH}\b)"
            r"(?=\s*(?:$|[,.;)}]|\\text\{\s*,?\s*(?:and|or)\b|(?:and|or)\b))",
            "",
        ),
        (r"(?<=\d)(?:\{,\}|,?\\,|,?\s*\\!\s*)(?=\d{3}(?!\d))", ""),
        (r"\{,\}", ","),
        (r"\\(?:text)?color\s*\{\w+\}|\\hspace\*?\s*\{[^{}]*\}", ""),
        (r"(?<!\\)\\[!,;:> ]|~", " "),
        (r"\\%", "%"),
        (r"\^\{\s*\\circ\s*\}", r"^\\circ"),
        # a digit seen three times before the dots goes on for ever
        (r"(\d*\.\d*?)(\d)\2\2+\s*\.\.\.", r"\1\\overline{\2}"),
        (r"\\?(?<![a-zA-Z])exp\s*(?=\()", "e^"),
        (r"\s+", " "),
        (r"(?<![\w.,] )(?<![\w.])(\d+) (\d{1,2})/(\d+)(?![\d/])", r"\1\\frac{\2}{\3}"),  # a mixed number
    ]
]
_MATRICES = [  # brackets around an array of cells say what those of an environment do
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"\\begin\{array\}\s*(?:\[[tcb]\])?\s*\{[lcr|\s]*\}", r"\\begin{matrix}"),
        (r"\\end\{array\}", r"\\end{matrix}"),
        (r"\\(begin|end)\{([pbBvV]?)smallmatrix\}", r"\\\1{\2matrix}"),
        (r"\\cr(?![a-zA-Z])", r"\\\\"),
        (rf"(?s)[(\[]\s*{_CELLS}\s*[)\]]", r"\\begin{pmatrix}\1\\end{pmatrix}"),
        (rf"(?s)\|\s*{_CELLS}\s*\|", r"\\begin{vmatrix}\1\\end{vmatrix}"),
    ]
]
_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
NUMBERS = {word: value for value, word in enumerate(_ONES.split())}
NUMBERS |= {word: 10 * value for value, word in enumerate(_TENS.split(), 2)}
_DIGITS = NUMBERS | {
    f"{ten}{sign}{one}": NUMBERS[ten] + NUMBERS[one]
    for ten in _TENS.split()
    for one in _ONES.split()[1:10]
    for sign in " -"
}
_DIGIT_WORD = "|".join(sorted(_DIGITS, key=len, reverse=True))
_DIGIT = re.compile(rf"^({_DIGIT_WORD})(?= |$)|\\text\s*\{{\s*({_DIGIT_WORD})\s*\}}", re.IGNORECASE)
_FONT = re.compile(rf"\\(?:{_FONTS}|mathit|mathsf|boldsymbol|bm|underline)\s*\{{")
_PLAIN_WORD = re.compile(
    rf"(?P<text>\\text\s*\{{[^{{}}]*\}})|(?<![\\a-zA-Z])(?P<word>pi|sqrt|infinity|inf|{_FUNCTIONS})(?![a-zA-Z])"
)
_ARGUMENTS = re.compile(r"(?P<frac>\\frac(?![a-zA-Z]))|\\sqrt(?![a-zA-Z])\s*(?:\[[^\[\]]*\])?|\^(?=\s*\()")
_TOKEN = re.compile(r"\\(?!sqrt|frac)[a-zA-Z]+|[0-9a-zA-Z]")
_SPACE = re.compile(r"(\\[a-zA-Z]+ (?=[a-zA-Z])|(?<=\d) (?=\d))| ")
_PLAIN = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[-+/][0-9]+)*")  # in which there is nothing to rewrite
_FINAL_POINT = re.compile(r"(?<![.])[.,;]$")


def clean(text: str) -> str:
    """The text in one notation: no typographic spacing, one name for each symbol, no dollars or final full stop."""
    if _PLAIN.fullmatch(text):
        return text
    text = text.translate(_UNICODE).strip()
    if (font := _FONT.match(text)) and _closing(text, font.end() - 1) == len(text):
        text = text[font.end() : -1]
    text = _DIGIT.sub(_as_digits, text)
    for pattern, replacement in [*_REWRITES, *(_MATRICES if "\\begin" in text else ())]:
        text = pattern.sub(replacement, text)
    text = _braced(_PLAIN_WORD.sub(_as_command, text))
    return _FINAL_POINT.sub("", text.strip()).strip()


def tight(text: str) -> str:
    """The text without the spaces that mean nothing."""
    return _SPACE.sub(lambda space: space[1] or "", text)


def _as_digits(match: re.Match[str]) -> str:
    return str(_DIGITS[(match[1] or match[2]).lower()])


def _as_command(match: re.Match[str]) -> str:
    if match["text"]:
        return match["text"]
    word = match["word"]
    return "\\infty " if word.startswith("inf") else f"\\{word} "


def _braced(text: str) -> str:
    r"""Braces around each argument, as LaTeX reads them: `\frac125` is `\frac{1}{2}5`; `^(1/2)` is `^{1/2}`."""
    at = 0
    while match := _ARGUMENTS.search(text, at):
        at = end = match.end()
        for _ in range(2 if match["frac"] else 1):
            text, end = _brace_argument(text, end, bool(match["frac"]))
    return text


def _brace_argument(text: str, at: int, latex: bool) -> tuple[str, int]:
    """The text with braces around the argument that begins at or after `at`, and where the argument ends."""
    while text[at : at + 1] == " ":
        at += 1
    opening = text[at : at + 1]
    if opening == "{" or (opening == "(" and not latex):
        end = _closing(text, at)
        if end is None:
            return text, at
        return (text, end) if opening == "{" else (f"{text[:at]}{{{text[at + 1 : end - 1]}}}{text[end:]}", end)
    if token := _TOKEN.match(text, at):
        return f"{text[:at]}{{{token[0]}}}{text[token.end() :]}", token.end() + 2
    return text, at


def _closing(text: str, at: int) -> int | None:
    """The end of the group that opens at `at`, None if it never ends."""
    pair = {"{": "{}", "(": "()"}[text[at]]
    depth = 0
    for position in range(at, len(text)):
        depth += (text[position] == pair[0]) - (text[position] == pair[1])
        if depth == 0:
            return position + 1
    return None

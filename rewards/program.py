"""Which text of an attempt is the program: by CommonMark's fences and Python's own parser."""

from __future__ import annotations

import ast
import builtins
import re
import textwrap
import warnings
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock

_BUILTINS = frozenset(dir(builtins)) | {"__name__", "__file__", "__doc__"}
_THOUGHT = re.compile(r"<(/?)(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_APOSTROPHE = re.compile(r"(?<=[A-Za-z])(?<!\b[rRbBfFuU])'(?=[A-Za-z])")
_STOP = re.compile(r"(?:<\|\w{1,40}\|>|</s>|<eos>|<end_of_turn>)\Z")
_LABEL = re.compile(r"[\s{.]*([\w+#-]*)(=?)")
_PYTHON = re.compile(r"(?:i?py(?:thon)?\d*)?", re.IGNORECASE)
_TAG_AFTER_FENCE = re.compile(r"(?<![`~])(`{3,}|~{3,})(?=</)")
_BARE = re.compile(r"^(?:(?:def|class|import|from|async def|if|for|while|try|with)\b|@\w|\w+(?:, *\w+)* *=)", re.M)
_TRIES = 20  # places where bare code may begin: each costs a parse


def find_program(text: str, wanted: Collection[str] = (), before: str = "") -> str:
    """The last part of an attempt that is Python and defines one of the `wanted` names, with the parts that it needs.

    `before` is source that an indented program continues. Without fences the program is what `[BEGIN]` or `<answer>`
    opens, or bare code. Where nothing fits, it is the last part, for whoever runs it to say what is wrong.
    """
    text = _without_stops(_visible(text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff")))
    parts: list[str] = []
    for indented in (False, True):
        fenced = _fenced(text, indented)
        parts = parts or fenced
        if found := _choose(fenced, wanted, before):
            return found
    rest = _marked(text)
    for source in _bare(rest) if wanted or not parts else ():
        if found := _choose([source], wanted, before):
            return found
    return _last(parts) if parts else rest


def joined(before: str, program: str) -> str:
    """HumanEval's prompt and what continues it; a program that stands alone is put after the prompt's own helpers."""
    return f"{before}\n{program}" if before and program[:1] not in (" ", "\t") else before + program


def _visible(text: str) -> str:
    """What is outside thinking blocks. A tag in a string of a program opens and closes nothing."""
    tags = [tag for tag in _THOUGHT.finditer(text) if not _is_quoted(text, tag.start(), tag.end())]
    start = max((tag.end() for tag in tags if tag[1]), default=0)
    return text[start : next((tag.start() for tag in tags if tag.start() >= start), None)]


def _is_quoted(text: str, start: int, end: int) -> bool:
    left = _APOSTROPHE.sub("", text[max(0, start - 200) : start].rpartition("\n")[2])
    right = text[end : end + 200].partition("\n")[0]
    return any(left.count(quote) % 2 and quote in right for quote in "'\"")


def _without_stops(text: str) -> str:
    """The text without the special tokens that end it."""
    for _ in range(8):
        end = text.rstrip()
        stop = _STOP.search(end, max(0, len(end) - 50))
        if stop is None:
            break
        text = end[: stop.start()]
    return text


@lru_cache(maxsize=2)
def _parser(indented: bool) -> MarkdownIt:
    """A parser of blocks alone. If `indented`, a fence may be indented by any amount."""
    parser = MarkdownIt("zero").enable(["fence", "list", "blockquote", *([] if indented else ["code"])])
    parser.block.ruler.at("paragraph", _one_line)  # no fence is a continuation of a paragraph
    return parser.disable("inline")


def _one_line(state: StateBlock, line: int, end: int, silent: bool) -> bool:
    state.line = line + 1
    return True


def _fenced(text: str, indented: bool) -> list[str]:
    """The fenced blocks that are not labelled as another language."""
    lines = "\n".join(map(_on_own_lines, text.split("\n")))
    blocks = [token for token in _parser(indented).parse(lines) if token.type == "fence"]
    return [token.content.removesuffix("\n").lstrip("\ufeff") for token in blocks if _is_python(token.info)]


def _on_own_lines(line: str) -> str:
    """The line with a fence that ends it, or that a closing tag follows, on a line of its own."""
    line = _TAG_AFTER_FENCE.sub(r"\1\n", line)
    for fence in ("```", "~~~"):
        head, found, info = line.partition(fence)
        if found and head.strip(" \t>-*") and "`" not in head and _is_python(info.strip(fence[0])):
            return f"{head}\n{found}{info}"
    return line


def _is_python(info: str) -> bool:
    label = _LABEL.match(info)
    return label is not None and bool(label[2] or _PYTHON.fullmatch(label[1]))


def _marked(text: str) -> str:
    """What the last `[BEGIN]` or `<answer>` opens, else all of it."""
    for opening, closing in (("[BEGIN]", "[DONE]"), ("<answer>", "</answer>")):
        if opening in text:
            return text.rpartition(opening)[2].partition(closing)[0]
    return text


def _bare(text: str) -> Iterator[str]:
    """Code that prose may surround: the whole, then from each line that looks like code to where it stops being."""
    yield text
    for number, start in enumerate(_BARE.finditer(text)):
        if number == _TRIES:
            return
        source = text[start.start() :]
        wrong = _error_line(source)
        yield source if wrong is None else "\n".join(source.split("\n")[: wrong - 1])


def _error_line(source: str) -> int | None:
    try:
        _parsed(source)
    except SyntaxError as error:
        return error.lineno
    return None


def _parsed(source: str) -> ast.Module:
    with warnings.catch_warnings(action="ignore"):  # a program's odd escapes are its own affair
        try:
            return ast.parse(source)
        except (ValueError, RecursionError, MemoryError) as error:
            raise SyntaxError(str(error)) from error


def _tree(source: str) -> ast.Module | None:
    try:
        return _parsed(source)
    except SyntaxError:
        return None


def _choose(parts: Sequence[str], wanted: Collection[str], before: str) -> str | None:
    """The program among the parts, if one fits: one that stands alone rather than a continuation of `before`."""
    names = set(wanted)
    for read in (_as_it_is, _unindented):
        found, rank = None, -1
        for place in reversed(range(len(parts))):
            for source in read(parts[place]):
                tree = _tree(source)
                fits = -1 if tree is None else _rank(tree, names)
                if tree is not None and fits > rank:
                    found, rank = (source, tree, parts[:place]), fits
            if rank == (0 if names else 2):  # no part fits better
                break
        if found:
            return _with_needs(*found, names)
    bodies = (source for part in reversed(parts) for source in _continuing(part)) if before else ()
    return next((source for source in bodies if _returns(before + source)), None)


def _as_it_is(part: str) -> list[str]:
    return [part]


def _unindented(part: str) -> list[str]:
    """Readings of a part that is indented as a whole, or whose first line alone is not."""
    return [textwrap.dedent(part), *(textwrap.dedent(source) for source in _indented(part))]


def _continuing(part: str) -> list[str]:
    """Readings of a part as the body of the function that stands before it."""
    return [part] if part[:1] in (" ", "\t") else _indented(part)


def _indented(part: str) -> list[str]:
    others = [line for line in part.split("\n")[1:] if line.strip()]
    least = min((line[: len(line) - len(line.lstrip())] for line in others), key=len, default="")
    return [indent + part for indent in dict.fromkeys([least, "    "]) if indent]


def _rank(tree: ast.Module, wanted: set[str]) -> int:
    """How well a part fits, -1 for not at all: it must define a wanted name; a script should run and read."""
    if wanted:
        return 0 if wanted & _defined(tree, imports=False) else -1
    plain = (ast.Constant, ast.Name, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.UnaryOp, ast.BinOp)
    doing = [node for node in tree.body if not (isinstance(node, ast.Expr) and isinstance(node.value, plain))]
    if not doing:  # it is some output
        return -1
    nodes = list(ast.walk(tree))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    names |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    defining = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
    runs = not all(isinstance(node, defining) for node in doing)
    return runs + (runs and bool(names & {"input", "stdin", "open", "fileinput"}))


def _with_needs(source: str, tree: ast.Module, earlier: Sequence[str], wanted: set[str]) -> str:
    """The source after those earlier parts that define names it uses, or wanted ones that it lacks."""
    chosen = [source]
    needs = (_free(tree) | wanted) - _defined(tree)
    for part in reversed(earlier):
        if not needs:
            break
        other = _tree(part)
        if other is not None and needs & _defined(other):
            chosen.insert(0, part)
            needs = (needs | _free(other)) - _defined(other)
    return "\n\n".join(chosen)


def _defined(tree: ast.Module, imports: bool = True) -> set[str]:
    """The names that a module binds outside its functions and classes."""
    names: set[str] = set()
    nodes: list[ast.AST] = list(tree.body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= _imported(node) if imports else set()
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif not isinstance(node, (ast.Lambda, ast.comprehension)):
            nodes.extend(ast.iter_child_nodes(node))
    return names


def _imported(node: ast.Import | ast.ImportFrom) -> set[str]:
    return {alias.asname or alias.name.partition(".")[0] for alias in node.names}


def _free(tree: ast.Module) -> set[str]:
    """The names that a module uses and binds nowhere."""
    used: set[str] = set()
    bound: set[str] = set(_BUILTINS)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            bound |= _imported(node)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
    return used - bound


def _returns(source: str) -> bool:
    """Whether the last function of a source gives something back: a block of assertions is not its body."""
    tree = _tree(source)
    if tree is None or not isinstance(tree.body[-1], ast.FunctionDef):
        return False
    return any(isinstance(node, (ast.Return, ast.Yield, ast.YieldFrom)) for node in ast.walk(tree.body[-1]))


def _last(parts: Sequence[str]) -> str:
    """The last part that is Python, with what it needs; the last of all if none is."""
    for place in reversed(range(len(parts))):
        tree = _tree(parts[place])
        if tree is not None and tree.body:
            return _with_needs(parts[place], tree, parts[:place], set())
    return parts[-1]

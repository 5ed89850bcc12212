"""Which text of an attempt is the program: by CommonMark's fences and Python's own symbol tables.

The attempt, without its thinking, is read in one way after another: as Markdown, as Markdown with fences indented by
any amount, as bare code among prose. The first reading with a block that fits decides, and there the last such block.
"""

from __future__ import annotations

import ast
import builtins
import re
import symtable
import textwrap
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock

from rewards.answers import without_thoughts

_BUILTINS = frozenset(dir(builtins)) | {"__name__", "__file__", "__doc__"}
_APOSTROPHE = re.compile(r"(?<=[A-Za-z])(?<!\b[rRbBfFuU])'(?=[A-Za-z])")
_STOP = re.compile(r"(?:<\|\w{1,40}\|>|</s>|<eos>|<end_of_turn>)\Z")
_LABEL = re.compile(r"[\s{.]*([\w+#-]*)(=?)")
_PYTHON = re.compile(r"(?:i?py(?:thon)?\d*)?", re.IGNORECASE)
_FENCE_THEN_TAG = re.compile(r"(?<![`~])(`{3,}|~{3,})(?=</)")
_CODE = re.compile(r"^(?:(?:def|class|import|from|async def|if|for|while|try|with)\b|@\w|\w+(?:, *\w+)* *=)", re.M)
_TRIES = 20  # places where bare code may begin: each costs a parse


def find_program(text: str, wanted: Collection[str] = (), before: str = "") -> str:
    """The last block of Python in an attempt that defines one of the `wanted` names, after the blocks that it needs.

    If nothing is wanted, it is the last block that does something, rather one that reads its input. A block that
    returns may instead be the body of the function that ends `before`. Where nothing fits, the last block is returned,
    for whoever runs it to say what is wrong.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff")
    text = _without_stops(without_thoughts(text, ignored=_is_quoted))
    fenced: list[str] = []
    for blocks in _readings(text):
        if found := _program(blocks, frozenset(wanted)) or _body(blocks, before):
            return found
        fenced = fenced or blocks
    return next((block for block in reversed(fenced) if _tree(block)), fenced[-1])


def joined(before: str, program: str) -> str:
    """HumanEval's prompt and what continues it; a program that stands alone is put after the prompt's own helpers."""
    return f"{before}\n{program}" if before and program[:1] not in (" ", "\t") else before + program


# What is looked at: the attempt without thinking blocks and without the special tokens that end it.


def _is_quoted(text: str, tag: re.Match[str]) -> bool:
    """Whether a tag stands in a string of a program."""
    left = _APOSTROPHE.sub("", text[max(0, tag.start() - 200) : tag.start()].rpartition("\n")[2])
    right = text[tag.end() : tag.end() + 200].partition("\n")[0]
    return any(left.count(quote) % 2 and quote in right for quote in "'\"")


def _without_stops(text: str) -> str:
    for _ in range(8):
        end = text.rstrip()
        stop = _STOP.search(end, max(0, len(end) - 50))
        if stop is None:
            break
        text = end[: stop.start()]
    return text


# Readings of an attempt: each gives blocks of text that may be Python.


def _readings(text: str) -> Iterator[list[str]]:
    if "```" in text or "~~~" in text:
        lines = "\n".join(map(_fences_on_own_lines, text.split("\n")))
        yield from filter(None, (_fenced(lines, indented) for indented in (False, True)))
    yield from ([block] for block in _bare(_marked(text)))


@lru_cache(maxsize=2)
def _parser(indented: bool) -> MarkdownIt:
    """A parser of blocks alone. If `indented`, a fence may be indented by any amount."""
    parser = MarkdownIt("zero").enable(["fence", "list", "blockquote", *([] if indented else ["code"])])
    parser.block.ruler.at("paragraph", _one_line)  # an indented fence does not continue a paragraph
    return parser.disable("inline")


def _one_line(state: StateBlock, line: int, end: int, silent: bool) -> bool:
    state.line = line + 1
    return True


def _fenced(text: str, indented: bool) -> list[str]:
    """The fenced blocks that are not labelled as another language."""
    blocks = [token for token in _parser(indented).parse(text) if token.type == "fence"]
    return [token.content.removesuffix("\n").lstrip("\ufeff") for token in blocks if _is_python(token.info)]


def _is_python(info: str) -> bool:
    label = _LABEL.match(info)
    return label is not None and bool(label[2] or _PYTHON.fullmatch(label[1]))


def _fences_on_own_lines(line: str) -> str:
    """The line with a fence that ends it, or that a closing tag follows, on a line of its own."""
    line = _FENCE_THEN_TAG.sub(r"\1\n", line)
    for fence in ("```", "~~~"):
        head, found, info = line.partition(fence)
        if found and head.strip(" \t>-*") and "`" not in head and _PYTHON.fullmatch(info.strip("`~ \t")):
            return f"{head}\n{found}{info}"
    return line


def _marked(text: str) -> str:
    """What the last `[BEGIN]` or `<answer>` opens, else all of it."""
    for opening, closing in (("[BEGIN]", "[DONE]"), ("<answer>", "</answer>")):
        if opening in text:
            return text.rpartition(opening)[2].partition(closing)[0]
    return text


def _bare(text: str) -> Iterator[str]:
    """Code that prose may surround: the whole, then from each line that looks like code to where it stops being."""
    yield text
    for _, start in zip(range(_TRIES), _CODE.finditer(text), strict=False):
        yield _while_python(text[start.start() :])


# Blocks as Python.


@dataclass(frozen=True)
class _Module:
    """A block that is Python, with what it means."""

    source: str
    tree: ast.Module
    table: symtable.SymbolTable

    @cached_property
    def binds(self) -> set[str]:
        """Names that it defines or assigns at its top level."""
        return {symbol.get_name() for symbol in self.table.get_symbols() if symbol.is_assigned()}

    @cached_property
    def imports(self) -> set[str]:
        """Names that it imports at its top level."""
        return {symbol.get_name() for symbol in self.table.get_symbols() if symbol.is_imported()}

    @cached_property
    def needs(self) -> set[str]:
        """Names that it uses anywhere and neither has nor finds among the built-in ones."""
        used: set[str] = set()
        scopes = [self.table]
        while scopes:
            scope = scopes.pop()
            used |= {name.get_name() for name in scope.get_symbols() if name.is_referenced() and name.is_global()}
            scopes += scope.get_children()
        return used - self.binds - self.imports - _BUILTINS


def _module(block: str) -> _Module | None:
    """The block as Python: as it is, or without the indentation of the whole, or of all but the first line."""
    for source in (block, textwrap.dedent(block), *map(textwrap.dedent, _indented(block))):
        tree = _tree(source)
        if tree is not None:
            with suppress(SyntaxError, RecursionError):  # such as a global declared after its use
                return _Module(source, tree, symtable.symtable(source, "<program>", "exec"))
    return None


def _indented(block: str) -> list[str]:
    """The block with its first line indented like the least indented of the others, or by four spaces."""
    others = [line for line in block.split("\n")[1:] if line.strip()]
    least = min((line[: len(line) - len(line.lstrip())] for line in others), key=len, default="")
    return [indent + block for indent in dict.fromkeys([least, "    "]) if indent]


def _tree(source: str) -> ast.Module | None:
    try:
        return _parsed(source)
    except SyntaxError:
        return None


def _parsed(source: str) -> ast.Module:
    with warnings.catch_warnings(action="ignore"):  # a program's odd escapes are its own affair
        try:
            return ast.parse(source)
        except (ValueError, RecursionError, MemoryError) as error:
            raise SyntaxError(str(error)) from error


def _while_python(source: str, before: str = "") -> str:
    """The lines of `source` up to where, after `before`, they stop being Python: prose, or an output cut short."""
    lines = source.split("\n")
    for _ in range(_TRIES):
        try:
            _parsed(before + "\n".join(lines))
            break
        except SyntaxError as error:
            wrong = (error.lineno or 1) - before.count("\n")
            lines = lines[: max(0, min(wrong, len(lines)) - 1)]
    return "\n".join(lines)


# The choice.


def _program(blocks: Sequence[str], wanted: frozenset[str]) -> str | None:
    """The last of the blocks that fit best, after those earlier ones that it needs; None if none fits."""
    modules = [module for block in blocks if (module := _module(block)) is not None]
    ranks = [_defines(module, wanted) if wanted else _acts(module) for module in modules]
    best = max(ranks, default=0)
    if not best:
        return None
    place = len(ranks) - 1 - ranks[::-1].index(best)
    chosen = [modules[place].source]
    missing = modules[place].needs | (wanted - modules[place].binds - modules[place].imports) if place else set()
    for other in reversed(modules[:place]):
        has = other.binds | other.imports
        if missing & has:
            chosen.insert(0, other.source)
            missing = (missing | other.needs) - has
    return "\n\n".join(chosen)


def _defines(module: _Module, wanted: frozenset[str]) -> int:
    """3 for a module that defines a wanted name, 2 if only as a stub, 1 for one that imports it, as usage does."""
    if wanted & module.binds:
        named = [node for node in module.tree.body if getattr(node, "name", None) in wanted]
        return 2 if named and all(map(_is_stub, named)) else 3
    return 1 if wanted & module.imports else 0


def _is_stub(node: ast.stmt) -> bool:
    """Whether it does nothing: `pass`, `...`, a docstring, a definition of nothing else."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return all(map(_is_stub, node.body))
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def _acts(module: _Module) -> int:
    """3 for a script that reads its input, 2 for one that runs, 1 for definitions, 0 for a mere value: some output."""
    plain = (ast.Constant, ast.Name, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.UnaryOp, ast.BinOp)
    doing = [node for node in module.tree.body if not (isinstance(node, ast.Expr) and isinstance(node.value, plain))]
    defining = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
    if all(isinstance(node, defining) for node in doing):
        return 1 if doing else 0
    return 3 if re.search(r"\b(?:input|stdin|open|fileinput)\b", module.source) else 2


def _body(blocks: Sequence[str], before: str) -> str | None:
    """The last block that continues `before`, as far as it is Python: what begins there gives something back."""
    lines = before.rstrip().count("\n") + 1
    for block in reversed(blocks if before else ()):
        for whole in [block] if block[:1] in (" ", "\t") else _indented(block):
            source = _while_python(whole, before)
            tree = _tree(before + source)
            begun = [node for node in tree.body if node.lineno <= lines] if tree is not None else []
            nodes = (node for last in begun[-1:] for node in ast.walk(last))
            if any(isinstance(node, (ast.Return, ast.Yield, ast.YieldFrom)) for node in nodes):
                return source
    return None

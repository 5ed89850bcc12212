"""What a program may return: every plain value as it is, and no object that lies about what it is."""

import pytest

PRELUDE = "import array, collections, datetime\nfrom fractions import Fraction\nfrom decimal import Decimal\n"
NAMED = "collections.namedtuple('Point', 'a b')"
# what f(1) returns, an assertion that is true of it, something else that looks like it
VALUES = [
    ("Fraction(1, 3)", "f(1) == Fraction(1, 3)", "1 / 3"),
    ("Decimal('0.1')", "f(1) == Decimal('0.1')", "0.1"),
    ("datetime.date(2020, 1, 2)", "f(1) == datetime.date(2020, 1, 2)", "'2020-01-02'"),
    ("datetime.time(1, 2)", "f(1).minute == 2", "datetime.time(2, 1)"),
    ("datetime.datetime(2020, 1, 2, 3)", "f(1).isoformat() == '2020-01-02T03:00:00'", "datetime.date(2020, 1, 2)"),
    ("datetime.timedelta(days=2)", "f(1) == datetime.timedelta(2) and f(1).days == 2", "2"),
    ("collections.deque([1, 2])", "f(1) == deque([1, 2])", "[1, 2]"),
    ("collections.Counter('aab')", "f(1).most_common(1) == [('a', 2)]", "{'a': 2}"),
    ("collections.OrderedDict(a=1)", "list(f(1).items()) == [('a', 1)]", "collections.OrderedDict(b=1)"),
    ("collections.defaultdict(int, a=1)", "f(1) == {'a': 1}", "collections.defaultdict(int)"),
    ("{'a': 1}.keys()", "f(1) == {'a'} and list(f(1)) == ['a']", "['a']"),
    ("{'a': 1}.values()", "sorted(f(1)) == [1]", "{'a': 1}"),
    ("{'a': 1}.items()", "f(1) == {('a', 1)}", "[('a', 1)]"),
    ("memoryview(b'ab')", "f(1) == b'ab' and bytes(f(1)) == b'ab'", "'ab'"),
    ("array.array('i', [1, 2])", "f(1)[1] == 2 and f(1).typecode == 'i'", "[1, 2]"),
    ("range(3)", "f(1) == range(3) and len(f(1)) == 3 and f(1)[1] == 1", "[0, 1, 2]"),
    ("lambda y: x + y", "f(1)(2) == 3", "lambda y: x - y"),
    ("x", "type(f(1)) == int", "True"),
    ("list(range(200_000))", "len(f(1)) == 200_000 and f(1)[-1] == 199_999", "list(range(199_999))"),
    (f"{NAMED}(1, 2)", "f(1) == (1, 2) and f(1).a == 1", f"{NAMED}(2, 1)"),
    ("(n for n in (1, 2))", "tuple(f(1)) == (1, 2)", "(n for n in (1, 2, 3))"),
    ("map(str, [1])", "list(f(1)) == ['1']", "map(int, [1])"),
    ("ValueError('x')", "isinstance(f(1), ValueError) and str(f(1)) == 'x'", "'x'"),
    ("int", "f(1) is int and f(1)('3') == 3", "float"),
]
LIAR = """
class A({base}):
    def yes(self, *_): return True
    def no(self, *_): return False
    def zero(self, *_): return 0
    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __bool__ = yes
    startswith = endswith = issubset = issuperset = isdigit = isdisjoint = yes
    __ne__ = no
    __sub__ = __rsub__ = __add__ = __radd__ = __mul__ = __mod__ = __len__ = __hash__ = __abs__ = zero
    __getitem__ = lambda self, key: 4 if key else 7
    __iter__ = lambda self: iter([A()])
    __float__ = lambda self: 0.0
def f(x): return A()
"""
LIES = [
    "f(2) == {0}", "{0} == f(2)", "not f(2) != {0}", "f(2) >= {0}", "f(2) in [{0}]", "[{0}] == [f(2)]",
    "[f(2)] == [{0}]", "{0} in f(2)", "str({0}) in f(2)", "abs(f(2) - {0}) < 1e-6", "abs({0} - f(2)) < 1e-6",
    "f(2) % {0} == 1", "f(2)[0] == {0}", "f(2).startswith(str({0}))", "f(2).issubset({{{0}}})",
    "f(2).issuperset({{{0}}})", "sorted(f(2)) == [{0}]", "list(f(2)) == [{0}]", "set(f(2)) == {{{0}}}",
    "{{{0}: 1}}[f(2)] == 1", "math.isclose(f(2), {0})", "max(f(2), {0}) == {0} < f(2)", "sum([f(2)]) == {0}",
    "f(2).isdigit() and int(f(2)) == {0}",
]  # fmt: skip


@pytest.mark.parametrize(("value", "test", "other"), VALUES, ids=[value for value, _, _ in VALUES])
def test_a_value_is_what_it_is(judge, value, test, other):
    row = {"test_list": [f"assert {test}"]}
    verdict = judge.judge(f"{PRELUDE}def f(x): return {value}", row, timeout=60.0)
    assert verdict.score == 1.0, verdict
    verdict = judge.judge(f"{PRELUDE}def f(x): return {other}", row, timeout=60.0)
    assert (verdict.score, verdict.status) == (0.0, "wrong"), verdict


BASES = {base: LIAR.format(base=base) for base in ("object", "int", "float", "str", "tuple", "list", "dict", "set")}
LIARS = {
    **BASES,
    "a class": BASES["object"].replace("def f(x): return A()", "class f(A):\n    def __init__(self, x): 1"),
    "a capitalized class": BASES["object"].replace("def f(x): return A()", "A.__init__ = lambda *_: None\nf = A"),
    "a class returned": (
        BASES["object"].replace("class A(object)", "class M(type)").replace("A()", "B")
        + "class B(metaclass=M): startswith = issubset = isdigit = staticmethod(M.yes)"
    ),
}  # fmt: skip


@pytest.mark.parametrize("liar", LIARS)
def test_an_object_that_answers_every_question_is_not_paid(judge, liar):
    # no one value passes any of them
    asserts = [f"assert {lie.format(41)} and {lie.format(52)}" for lie in LIES]
    for row in (
        {"test_list": asserts},
        {"test": "from solution import f\nimport math\n" + "".join(
            f"def test_{number}(): {line}\n" for number, line in enumerate(asserts)
        )},
    ):  # fmt: skip
        verdict = judge.judge(LIARS[liar], row, partial=True, timeout=60.0)
        assert (verdict.score, verdict.status) == (0.0, "wrong"), verdict
        assert f"0 of {len(LIES)} tests passed" in verdict.detail


def test_what_a_static_method_returns_is_not_taken_at_its_word(judge):
    liar = BASES["object"].replace("class A", "class Sums").replace("def f(x): return A()", "    add = staticmethod(")
    liar += "lambda *_: Sums())\n"
    for test in ("abs(Sums.add(2, 3) - 5) < 1e-6", "5 in Sums.add(2, 3)", "Sums.add(2, 3).startswith('5')"):
        assert judge.judge(liar, {"test": f"from solution import Sums\ndef test(): assert {test}"}).score == 0.0


def test_an_object_that_a_method_returns_is_not_taken_at_its_word(judge):
    source = "from solution import Stack\ndef test():\n    stack = Stack()\n    stack.push(4)\n"
    honest = "class Stack:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x)\n"
    honest += "    def top(self): return self.items[-1]\n    def __contains__(self, x): return x in self.items\n"
    liar = LIAR.format(base="object").replace("class A", "class Stack").replace("def f(x): return A()", "")
    liar += "    push = yes\n    top = lambda self: self\n    items = property(lambda self: self)\n"
    for test in ("abs(stack.top() - 4) < 1e-6", "4 in stack.items", "stack.top() == 4", "[4] == stack.items"):
        row = {"test": f"{source}    assert {test}"}
        assert judge.judge(honest, row, timeout=60.0).score == 1.0
        assert judge.judge(liar, row, timeout=60.0).score == 0.0
    assert judge.judge(honest, {"test": f"{source}    assert 4 in stack and 5 not in stack"}).score == 1.0


# each gets at the expected value unless it is refused; `peer` is the program's end of the channel
PEEKS = {
    "attributes of a function": "return getattr(function, '__globals__')['SECRET']",
    "attributes of a method": "return function.__self__.secret",
    "a text's format": "return peer.call(peer.ask('get', '{0.__globals__[SECRET]}', 'format'), (function,), {})",
    "an operator on a text": "return peer.ask('operate', '__mod__', '%s', function)",
    "names of the tests": "return peer.ask('names', ['SECRET'])['SECRET']",
    "its module": "return peer.ask('root').SECRET",
    "a function that it was not given": "return peer.call(len, ([1],), {})",
    "another method": "function.__self__.check = lambda value: True",
    "a copy": "return copy.deepcopy(function).__globals__['SECRET']",
}
PEEKING = """
import copy, gc
from rewards.sandbox.peer import Peer
def f(function):
    peer = next(item for item in gc.get_objects() if isinstance(item, Peer))
    try:
        %s
    except BaseException as error:
        return "refused"
"""
SECRETS = """
import solution
SECRET = 41
class TestIt:
    secret = 41
    def get(self): return 1
    def check(self, value): assert value in ("refused", None)
    def test_function(self): self.check(solution.f(lambda: 1))
    def test_method(self): self.check(solution.f(self.get))
"""


@pytest.mark.parametrize("name", PEEKS)
def test_what_the_tests_hand_over_can_be_called_and_not_looked_into(judge, name):
    verdict = judge.judge(PEEKING % PEEKS[name], {"test": SECRETS}, timeout=60.0)
    assert verdict.detail == "2 tests passed", verdict
    verdict = judge.judge("def f(function): return function()", {"test": SECRETS}, timeout=60.0)
    assert verdict.score == 0.0


FORGED = """
import json, os, struct, sys
def send(text):
    for fd in range(3, 64):
        try: os.write(fd, struct.pack('!Q', len(text)) + text)
        except OSError: pass
def f(x):
    send(%r)
    return 7
"""


@pytest.mark.parametrize(
    "frame",
    [b"v4", b"w[4, {\"d\": []}, null]", b"r", b"[1, 1, \"\", \"\"]", b"e{\"m\": [\"StopIteration\"]}", b"", b"?",
     b"v{\"o\": [\"yours\", 0]}", b"?{\"t\": [\"get\", {\"o\": [\"yours\", 0]}, \"x\"]}", b"p{\"t\": [1, \"x\"]}",
     b"v{\"g\": \"rewards\"}", b"v{\"m\": [\"ndarray\", [], \"O\"]}", b"e{\"g\": \"NotImplemented\"}", b"v[10e400, 0]"],
)  # fmt: skip
def test_a_forged_answer_is_not_paid(judge, frame):
    for tests in (["assert f(2) == 4", "assert f(3) == 9"], ["assert f(2) == 4 and f(3) == 9"]):
        verdict = judge.judge(FORGED % frame, {"test_list": tests}, timeout=60.0)
        assert (verdict.score, verdict.status) == (0.0, "wrong"), verdict

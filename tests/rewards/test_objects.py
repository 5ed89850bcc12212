"""Tests that use the program's objects from another sandbox: pytest and unittest files, values, and lies about them."""

import pytest

BANK = """
import enum, functools

LIMIT = 500

class Overdrawn(ValueError):
    def __init__(self, missing):
        super().__init__(f"{missing} missing")
        self.missing = missing

class Kind(enum.Enum):
    PRIVATE = "private"
    FIRM = "firm"

@functools.total_ordering
class Account:
    count = 0

    def __init__(self, owner, balance=0, kind=Kind.PRIVATE):
        self.owner, self.balance, self.kind, self.log = owner, balance, kind, []
        Account.count += 1

    @classmethod
    def parse(cls, text):
        owner, balance = text.split(":")
        return cls(owner, int(balance))

    @staticmethod
    def fee(amount):
        return amount // 100

    @property
    def rich(self):
        return self.balance > LIMIT

    def pay(self, amount):
        if amount > self.balance:
            raise Overdrawn(amount - self.balance)
        self.balance -= amount
        self.log.append(amount)
        return self

    def __add__(self, other):
        more = other if isinstance(other, int) else other.balance
        return Account(self.owner, self.balance + more, self.kind)

    def __eq__(self, other):
        return isinstance(other, Account) and self.balance == other.balance

    def __lt__(self, other):
        return self.balance < other.balance

    def __hash__(self):
        return hash(self.balance)

    def __bool__(self):
        return self.balance > 0

    def __len__(self):
        return len(self.log)

    def __contains__(self, amount):
        return amount in self.log

    def __getitem__(self, place):
        return self.log[place]

    def __iter__(self):
        return iter(self.log)

    def __repr__(self):
        return f"Account({self.owner!r}, {self.balance})"

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        self.balance = 0

def greet(name):
    print(f"hello {name}")

def ask():
    return input("name? ").upper()

def apply(function, items):
    return [function(item) for item in items]

def adder(n):
    return lambda x: x + n

def sort_in_place(items, key=None):
    items.sort(key=key)

def count_up():
    n = 0
    while True:
        yield n
        n += 1

async def double(x):
    return 2 * x

def label_of(item):
    item.label = item.label.upper()
    return item
"""

# name: a test that passes, and a change of the program that makes it fail
TESTS = {
    "fixture": (
        "@pytest.fixture\ndef account(): return Account('a', 10)\n"
        "def test(account): assert account.pay(3).balance == 7",
        ("balance -= amount", "balance -= 1"),
    ),
    "fixture that yields, autouse and scoped": (
        "@pytest.fixture(autouse=True, scope='module')\ndef account():\n    yield Account('a', 10)\n"
        "class TestIt:\n    def test(self, account): assert account.owner == 'a'",
        ("self.owner, self", "self.name, self"),
    ),
    "capsys": (
        "def test(capsys):\n    greet('Ann')\n    assert capsys.readouterr().out == 'hello Ann\\n'",
        ("hello", "hullo"),
    ),
    "monkeypatch of input and of a name": (
        "def test(monkeypatch):\n    monkeypatch.setattr('builtins.input', lambda prompt: 'ann')\n"
        "    assert ask() == 'ANN'\n    monkeypatch.setattr(solution, 'LIMIT', 5)\n    assert Account('a', 6).rich",
        (".upper()\n\ndef apply", "\n\ndef apply"),
    ),
    "param and mark": (
        "@pytest.mark.slow\n@pytest.mark.parametrize('n, fee', [(100, 1), pytest.param(250, 2, id='more')])\n"
        "def test(n, fee): assert Account.fee(n) == fee",
        ("// 100", "// 50"),
    ),
    "skip": (
        "@pytest.mark.skip\ndef test_never(): assert False\ndef test(): assert LIMIT == 500",
        ("LIMIT = 500", "LIMIT = 501"),
    ),
    "setup_method": (
        "class TestIt:\n    def setup_method(self): self.account = Account('a', 1)\n"
        "    def test(self): assert self.account.balance == 1",
        ("owner, balance, kind, []", "owner, 2, kind, []"),
    ),
    "unittest": (
        "class Cases(unittest.TestCase):\n    def setUp(self): self.account = Account('a', 10)\n"
        "    def test_pay(self):\n        self.assertEqual(self.account.pay(4).balance, 6)\n"
        "    def test_raises(self):\n        with self.assertRaises(Overdrawn): self.account.pay(11)\n"
        "    def test_parts(self):\n        for n in (1, 2):\n"
        "            with self.subTest(n=n): self.assertIn(self.account.pay(n), [self.account])",
        ("raise Overdrawn(amount - self.balance)", "return self"),
    ),
    "constant": ("def test(): assert LIMIT == 500", ("LIMIT = 500", "LIMIT = '500'")),
    "enum": (
        "def test():\n    assert Kind.FIRM.value == 'firm' and Kind('firm') is Kind.FIRM and len(Kind) == 2\n"
        "    assert [kind.name for kind in Kind] == ['PRIVATE', 'FIRM'] and Kind['FIRM'] == Kind.FIRM\n"
        "    assert Account('a').kind == Kind.PRIVATE and Account('a').kind != Kind.FIRM\n"
        "    assert isinstance(Kind.FIRM, Kind) and {Kind.FIRM: 1}[Kind.FIRM] == 1",
        ('FIRM = "firm"', 'FIRM = "business"'),
    ),
    "class method and class attribute": (
        "def test():\n    before = Account.count\n    account = Account.parse('a:12')\n"
        "    assert isinstance(account, Account) and account.balance == 12 and Account.count == before + 1",
        ("int(balance)", "balance"),
    ),
    "type": (
        "def test():\n    assert type(Account('a')) is Account and type(Account.fee(100)) == int\n"
        "    assert Account.__name__ == 'Account' and issubclass(Overdrawn, ValueError)",
        ("amount // 100", "amount / 100"),
    ),
    "in-place mutation": (
        "def test():\n    items = [3, 1, 2]\n    sort_in_place(items)\n    assert items == [1, 2, 3]",
        ("items.sort(key=key)", "sorted(items)"),
    ),
    "attributes": (
        "def test():\n    account = Account('a', 10)\n    account.balance = 600\n    account.note = 'x'\n"
        "    assert account.rich and account.note == 'x' and not hasattr(account, 'other')",
        ("self.balance > LIMIT", "False"),
    ),
    "lambda": (
        "def test():\n    assert apply(lambda x: x * 2, [1, 2]) == [2, 4]\n    assert apply(str, [1]) == ['1']\n"
        "    items = ['bb', 'a']\n    sort_in_place(items, key=lambda text: len(text))\n"
        "    assert items == ['a', 'bb']",
        ("[function(item)", "[item"),
    ),
    "an exception of a function of the tests'": (
        "def bad(x): raise KeyError(x)\ndef test():\n    with pytest.raises(KeyError, match='7'): apply(bad, [7])",
        ("[function(item)", "[item"),
    ),
    "operators and truth": (
        "def test():\n    a, b = Account('a', 1), Account('b', 2)\n"
        "    assert a + b == Account('c', 3) and a + 4 == a + b + b\n"
        "    assert a < b and b >= a and max([a, b]) == b and a != b and len({a, a + 0}) == 1\n"
        "    assert a and not Account('z') and repr(a) == \"Account('a', 1)\" and f'{a}' == str(a)",
        ("self.balance + more", "self.balance"),
    ),
    "container": (
        "def test():\n    a = Account('a', 10).pay(1)\n    a.pay(2)\n"
        "    assert len(a) == 2 and a[1] == 2 and a[-1:] == [2]\n"
        "    assert list(a) == [1, 2] and 2 in Account.parse('b:3').pay(2)",
        ("self.log.append(amount)", "self.log.insert(0, amount)"),
    ),
    "in on an object of the tests'": (
        "def test():\n    a = Account('a', 10)\n    a.pay(2)\n    assert 2 in a and 3 not in a",
        ("return amount in self.log", "return True"),
    ),
    "custom exception": (
        "def test():\n    with pytest.raises(Overdrawn, match='5 missing') as raised: Account('a').pay(5)\n"
        "    assert raised.value.missing == 5 and str(raised.value) == '5 missing'\n"
        "    with pytest.raises(ValueError): Account('a').pay(5)",
        ("self.missing = missing", "pass"),
    ),
    "with": (
        "def test():\n    with Account('a', 5) as account: assert account.balance == 5\n"
        "    assert account.balance == 0",
        ("self.balance = 0", "pass"),
    ),
    "returned function": ("def test(): assert adder(3)(4) == 7", ("x + n", "x - n")),
    "generator": (
        "def test():\n    numbers = count_up()\n    assert next(numbers) == 0 and next(numbers) == 1\n"
        "    assert [n for _, n in zip(range(40), count_up())] == list(range(40))",
        ("n += 1", "n += 2"),
    ),
    "coroutine": (
        "import asyncio\nasync def test_await(): assert await double(2) == 4\n"
        "def test_run(): assert asyncio.run(double(3)) == 6",
        ("2 * x", "3 * x"),
    ),
    "object of the tests'": (
        "class Item:\n    def __init__(self, label): self.label = label\n"
        "def test():\n    item = Item('x')\n    assert label_of(item) is item and item.label == 'X'",
        ("item.label.upper()", "item.label"),
    ),
    "approx": (
        "def test(): assert apply(lambda x: x / 3, [1, 2]) == pytest.approx([0.333333333, 0.666666667])",
        ("[function(item)", "[1 + function(item)"),
    ),
    "mock": (
        "from unittest.mock import Mock, patch\ndef test():\n    heard = Mock(return_value=1)\n"
        "    assert apply(heard, [5]) == [1]\n    heard.assert_called_once_with(5)\n"
        "    with patch('solution.LIMIT', 5): assert Account('a', 6).rich",
        ("function(item)", "function(item) and function(item)"),
    ),
    "deepcopy": (
        "import copy\ndef test():\n    a = Account('a', 5)\n    b = copy.deepcopy(a)\n"
        "    b.pay(5)\n    assert a.balance == 5",
        ("owner, balance, kind, []", "owner, balance + 1, kind, []"),
    ),
}


@pytest.mark.parametrize("name", TESTS)
def test_a_pytest_file_with(judge, name):
    source, (old, new) = TESTS[name]
    row = {"test": f"import pytest, unittest, solution\nfrom solution import *\n{source}"}
    verdict = judge.judge(BANK, row)
    assert verdict.score == 1.0, verdict
    assert BANK.count(old) >= 1
    verdict = judge.judge(BANK.replace(old, new, 1), row)
    assert (verdict.score, verdict.status) == (0.0, "wrong"), verdict

"""Programs that try to be paid, to stay, or to spoil the next job. Each is asked for f(2), f(3) and f(5)."""

HONEST = "def f(x):\n    return x * x\n"

# name, source: none of these computes a square
HOSTILE = {
    "always equal object": "class A:\n    def __eq__(self, other): return True\ndef f(x): return A()",
    "lying int": "class A(int):\n    def __eq__(self, other): return True\n    __hash__ = None\ndef f(x): return A(1)",
    "lying str and list": "class A(list):\n    def __eq__(self, other): return True\ndef f(x): return A('ab')",
    "sys.exit in the call": "import sys\ndef f(x): sys.exit(0)",
    "sys.exit at the top": "raise SystemExit(0)",
    "os._exit in the call": "import os\ndef f(x): os._exit(0)",
    "os._exit at the top": "import os\nos._exit(0)",
    "quiet excepthook": "import sys\nsys.excepthook = lambda *a: sys.exit(0)\nraise ValueError",
    "segfault": "import ctypes\ndef f(x): ctypes.string_at(0)",
    "patched builtins": (
        "import builtins, json\nbuiltins.len = lambda x: 0\nbuiltins.isinstance = lambda *a: True\n"
        "builtins.type = lambda x: int\njson.dumps = lambda *a, **k: '4'\ndef f(x): return 4"
    ),
    "patched guest": (
        "import rewards.sandbox.guest as g, rewards.sandbox.values as v\n"
        "g.dumps = v.dumps = lambda *a: b'4'\ng._told = lambda e: {'ready': True}\ndef f(x): return 4"
    ),
    "frame walk": (
        "import sys\ndef f(x):\n    frame, found = sys._getframe(), []\n    while frame:\n"
        "        found += [v for v in frame.f_locals.values() if v in (4, 9, 25)]\n        frame = frame.f_back\n"
        "    return found[0] if found else None"
    ),
    "gc walk": (
        "import gc\ndef f(x):\n    texts = [repr(o) for o in gc.get_objects() if isinstance(o, (dict, list, tuple))]\n"
        "    return 25 if any('== 25' in t for t in texts) else None"
    ),
    "answers on every descriptor": (
        "import os, struct\nfor frame in (b'v4', b'v4', b'v4'):\n    for fd in range(64):\n"
        "        try: os.write(fd, struct.pack('!Q', len(frame)) + frame)\n        except OSError: pass\n"
        "def f(x): return 4"
    ),
    "noise on every descriptor": (
        "import os\ndef f(x):\n    for fd in range(3, 64):\n        try: os.write(fd, b'A' * 65536)\n"
        "        except OSError: pass"
    ),
    "closed descriptors": "import os\nos.closerange(0, 64)\n" + HONEST,
    "giant text": "def f(x): return 'x' * (100 << 20)",
    "giant list": "def f(x): return [0] * 10**7",
    "cyclic value": "def f(x):\n    a = []\n    a.append(a)\n    return a",
    "deep value": "def f(x):\n    a = []\n    for _ in range(10**5): a = [a]\n    return a",
    "endless iterator": "import itertools\ndef f(x): return itertools.count()",
    "a reply too deep to read": (
        "import os, struct\nfor fd in range(3, 64):\n    text = b'e' + b'[' * 200000\n"
        "    try: os.write(fd, struct.pack('!Q', len(text)) + text)\n    except OSError: pass\ndef f(x): return 4"
    ),
    "memory": "def f(x):\n    a = []\n    while True: a.append(bytearray(1 << 20))",
    "recursion": "def f(x): return f(x)",
    "daemon": "import os\ndef f(x):\n    if os.fork() == 0:\n        while True: os.setsid()\n    return x * x",
    "nested namespaces": (
        "import ctypes, os\ndef f(x):\n    if ctypes.CDLL(None).unshare(0x10020000) < 0: raise OSError('refused')\n"
        "    return x * x"
    ),
    "raised limits": (
        "import resource\ndef f(x):\n    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))\n    return x * x"
    ),
    "network": "import socket\ndef f(x):\n    socket.create_connection(('127.0.0.1', 1), 1)\n    return x * x",
    "host files": "def f(x):\n    open('/etc/passwd').read()\n    return x * x",
    "other processes": "import os\ndef f(x): return [p for p in os.listdir('/proc') if p.isdigit()]",
    "writes to the library": "import os\ndef f(x):\n    open(os.__file__, 'a').write('')\n    return x * x",
    "environment": "import os\ndef f(x): return os.environ['HOME'] and x * x",
    "stops itself": "import os, signal\ndef f(x):\n    os.kill(os.getpid(), signal.SIGSTOP)\n    return x * x",
    "aborts": "import os\ndef f(x): os.abort()",
    "takes a filter of its own": (
        "import ctypes\ndef f(x):\n    if ctypes.CDLL(None).prctl(38, 1, 0, 0, 0) < 0: raise OSError('refused')\n"
        "    return x * x"
    ),
    "becomes another user": "import os\ndef f(x):\n    os.setresuid(0, 0, 0)\n    return x * x",
    "leaves its group": "import os\ndef f(x):\n    os.setpgid(0, 0)\n    return x * x",
    "mounts": (
        "import ctypes\ndef f(x):\n    if ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, b'') < 0:\n"
        "        raise OSError('refused')\n    return x * x"
    ),
    "starts a program": "import os\ndef f(x):\n    os.execv('/bin/true', ['true'])",
}

# these end only by the deadline
ENDLESS = {
    "loop": "def f(x):\n    while True: pass",
    "hang in C": "def f(x): return sum(range(10**15))",
    "swallowed signals": (
        "import signal\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n"
        "    except Exception: pass\ndef f(x):\n    while True:\n        try:\n            while True: pass\n"
        "        except BaseException: pass"
    ),
    "fork bomb": "import os\ndef f(x):\n    while True:\n        try: os.fork()\n        except OSError: pass",
    "thread bomb": (
        "import threading, time\nthreading.stack_size(1 << 15)\ndef f(x):\n    while True:\n"
        "        try: threading.Thread(target=time.sleep, args=(100,)).start()\n        except Exception: pass"
    ),
    "endless output": "def f(x):\n    while True: print('x' * 10000)",
    "memory again and again": (
        "def f(x):\n    a = []\n    while True:\n        try: a.append(bytearray(1 << 20))\n"
        "        except MemoryError: pass"
    ),
}

# odd, but they do compute the square
INNOCENT = {
    "debugging": "import sys\ndef f(x):\n    print('x =', x)\n    sys.stderr.write('x')\n    return x * x",
    "main block": HONEST + "print(f(1))\nif __name__ == '__main__':\n    f(int(input()))",
    "sys.exit after the definitions": HONEST + "import sys\nsys.exit(1)",
    "kills everyone": (
        "import os\ndef f(x):\n    for pid in (-1, 0, 1, os.getppid()):\n        try: os.kill(pid, 9)\n"
        "        except OSError: pass\n    return x * x"
    ),
    "fills the disk": (
        "def f(x):\n    for n in range(10**5):\n        try: open(f'/tmp/{n}', 'w').write('x' * (1 << 20))\n"
        "        except OSError: return x * x"
    ),
    "fills shared memory": (
        "def f(x):\n    for n in range(10**5):\n        try: open(f'/dev/shm/{n}', 'w').write('x' * (1 << 20))\n"
        "        except OSError: return x * x"
    ),
    "dataclass and thread": (
        "import dataclasses, threading\n@dataclasses.dataclass\nclass Box:\n    value: int\ndef f(x):\n"
        "    box = Box(0)\n    t = threading.Thread(target=lambda: setattr(box, 'value', x * x))\n"
        "    t.start()\n    t.join()\n    return box.value"
    ),
    "no modules left": "import sys\nsys.modules.clear()\n" + HONEST,
}

"""What the benchmark programs do, in Python: ``python -m benchmarks.twins NAME N``.

Prints the result, and the milliseconds on standard error, as the programs and their C twins do.
"""

from __future__ import annotations

import math
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

_LOW = 0xFFFFFFFF


def _word(value: int) -> int:
    return ((value + 0x80000000) & _LOW) - 0x80000000


def alu(n: int) -> int:
    a, b = 1, 7
    for i in range(n):
        a = _word((a ^ _word(b << 3)) + i)
        b = _word((b & 0xFFFFFF) * 3 + (a >> 5))
        if a & 1 == 0:
            b = _word(b - i)
    return a


def arrays(n: int) -> int:
    a = [i * 37 & 1023 for i in range(1024)]
    total = 0
    for k in range(n):
        j = a[k & 1023]
        a[j] = a[j] + k & 1023
        total += a[j + k & 1023]
    return total


def bigs(n: int) -> int:
    x, total, mask = 88172645463325252, 0, (1 << 64) - 1
    for _ in range(n):
        x = (x ^ x << 13) & mask
        x ^= x >> 7
        x = (x ^ x << 17) & mask
        total += x % 1000003
    return total


def channels(n: int) -> int:
    there: queue.SimpleQueue[int] = queue.SimpleQueue()
    back: queue.SimpleQueue[int] = queue.SimpleQueue()

    def work() -> None:
        while (value := there.get()) >= 0:
            back.put(value * 2 + 1)

    threading.Thread(target=work, daemon=True).start()
    total = 0
    for i in range(n):
        there.put(i)
        total += back.get()
    there.put(-1)
    return total


def dispatch(n: int) -> int:
    shapes: list[tuple[Callable[..., int], tuple[int, ...]]] = [
        (lambda r: 3 * r * r, (3,)),
        (lambda side: side * side, (4,)),
        (lambda w, h: w * h, (5, 6)),
        (lambda r: 3 * r * r, (7,)),
    ]
    total = 0
    for i in range(n):
        area, sizes = shapes[i & 3]
        total = total + area(*sizes) & 0xFFFFFFF
    return total


def fib(n: int) -> int:
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def lists(n: int) -> int:
    total = 0
    for _ in range(n):
        made: Any = None
        for i in range(2000):
            made = (i, made)
        while made is not None:
            value, made = made
            total += value
    return total


def mandel(n: int) -> int:
    inside = 0
    for y in range(n):
        ci = 2.0 * y / n - 1.0
        for x in range(n):
            c, z, k = complex(2.0 * x / n - 1.5, ci), 0j, 0
            while k < 60 and z.real * z.real + z.imag * z.imag <= 4.0:
                z = z * z + c
                k += 1
            inside += k == 60
    return inside


def matmul(n: int) -> float:
    a = [[(i - j) / n for j in range(n)] for i in range(n)]
    b = [[(i + 2 * j + 1) / n for j in range(n)] for i in range(n)]
    c = [[0.0] * n for _ in range(n)]
    for i in range(n):
        out = c[i]
        for k in range(n):
            x, row = a[i][k], b[k]
            for j in range(n):
                out[j] += x * row[j]
    return sum(c[i][i] for i in range(n))


class _Body:
    __slots__ = ("mass", "vx", "vy", "vz", "x", "y", "z")

    def __init__(self, f: float) -> None:
        self.x, self.y, self.z, self.mass = f * 1.5, f * -0.7, f * 0.3, 1.0 / f
        self.vx, self.vy, self.vz = 0.1 / f, 0.2 * f, -0.05 * f


def nbody(n: int) -> float:
    bodies = [_Body(i + 1.0) for i in range(5)]
    for _ in range(n):
        for i, a in enumerate(bodies):
            for b in bodies[i + 1 :]:
                dx, dy, dz = a.x - b.x, a.y - b.y, a.z - b.z
                d2 = dx * dx + dy * dy + dz * dz + 0.01
                mag = 0.001 / (d2 * math.sqrt(d2))
                a.vx -= dx * b.mass * mag
                a.vy -= dy * b.mass * mag
                a.vz -= dz * b.mass * mag
                b.vx += dx * a.mass * mag
                b.vy += dy * a.mass * mag
                b.vz += dz * a.mass * mag
        for a in bodies:
            a.x += 0.001 * a.vx
            a.y += 0.001 * a.vy
            a.z += 0.001 * a.vz
    return bodies[0].x


def _sort(a: list[int], start: int, end: int) -> None:
    while end - start > 16:
        pivot, i, j = a[start + (end - start) // 2], start, end - 1
        while i <= j:
            while a[i] < pivot:
                i += 1
            while a[j] > pivot:
                j -= 1
            if i <= j:
                a[i], a[j] = a[j], a[i]
                i, j = i + 1, j - 1
        _sort(a, start, j + 1)
        start = i
    for k in range(start + 1, end):
        v, m = a[k], k - 1
        while m >= start and a[m] > v:
            a[m + 1] = a[m]
            m -= 1
        a[m + 1] = v


def qsort(n: int) -> int:
    a, seed = [], 12345
    for _ in range(n):
        seed = seed * 1103515245 + 12345 & _LOW
        a.append(seed >> 8)
    _sort(a, 0, n)
    return a[n // 2]


def sieve(n: int) -> int:
    composite, count = bytearray(n + 1), 0
    for i in range(2, n + 1):
        if not composite[i]:
            count += 1
            for j in range(i + i, n + 1, i):
                composite[j] = 1
    return count


def strings(n: int) -> int:
    s, vowels = "", 0
    for i in range(n):
        s += chr(ord("a") + i % 26)
        if len(s) > 4096:
            s = s[2048:]
    for _ in range(200):
        for c in s:
            vowels += c in "aeiou"
    t = ""
    for i in range(2000):
        t += str(i)
    return vowels + len(t)


def trees(n: int) -> int:
    def grow(depth: int) -> Any:
        return (grow(depth - 1), grow(depth - 1)) if depth else (None, None)

    def count(tree: Any) -> int:
        return 1 if tree[0] is None else 1 + count(tree[0]) + count(tree[1])

    return sum(count(grow(n)) for _ in range(16))


TWINS: dict[str, Callable[[int], float]] = {
    f.__name__: f
    for f in (
        alu, arrays, bigs, channels, dispatch, fib, lists, mandel, matmul, nbody, qsort, sieve,
        strings, trees,
    )
}  # fmt: skip


def main() -> None:
    """Run one of them."""
    name, size = sys.argv[1], int(sys.argv[2])
    began = time.perf_counter()
    print(TWINS[name](size))
    print(f"{name} {1e3 * (time.perf_counter() - began):.1f} ms", file=sys.stderr)


if __name__ == "__main__":
    main()

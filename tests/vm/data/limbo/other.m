Other: module { PATH: con "/other.dis"; ask: fn(c: chan of int, n: int): int; deep: fn(f: ref fn(n: int): int, n: int): int; };

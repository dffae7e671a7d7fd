Plug: module {
	PATH: con "/plug.dis";
	count: int; name: string; tab: array of int;
	T: adt { id: int; s: string; mk: fn(s: string): ref T; show: fn(t: self ref T): string; pick { One => a: int; Two => b: list of string; } };
	E: exception(int);
	init: fn(n: int): string;
	next: fn(): int;
	apply: fn(f: ref fn(x: int): int, n: int): list of int;
	fail: fn(k: int) raises E;
	ch: fn(): chan of ref T;
};

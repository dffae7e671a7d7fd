implement Polys;
include "sys.m"; sys: Sys;
include "draw.m";
Polys: module { init: fn(nil: ref Draw->Context, argv: list of string); };
Stack: adt[T] {
	items: list of T; n: int;
	push: fn(s: self ref Stack, x: T);
	pop: fn(s: self ref Stack): T;
	rev: fn(s: self ref Stack): list of T;
};
Stack[T].push(s: self ref Stack, x: T) { s.items = x :: s.items; s.n++; }
Stack[T].pop(s: self ref Stack): T { x := hd s.items; s.items = tl s.items; s.n--; return x; }
Stack[T].rev(s: self ref Stack): list of T { r: list of T; for(l := s.items; l != nil; l = tl l) r = hd l :: r; return r; }
Key: adt { k: string; n: int; cmp: fn(a: self ref Key, b: ref Key): int; str: fn(a: self ref Key): string; };
Key.cmp(a: self ref Key, b: ref Key): int { if(a.n != b.n) return a.n - b.n; if(a.k < b.k) return -1; return a.k > b.k; }
Key.str(a: self ref Key): string { return a.k + "/" + string a.n; }
sort[T](a: array of T) for { T => cmp: fn(a: self T, b: T): int; }
{
	for(i := 1; i < len a; i++) { x := a[i]; for(j := i; j > 0 && a[j-1].cmp(x) > 0; j--) a[j] = a[j-1]; a[j] = x; }
}
show[T](l: list of T): string for { T => str: fn(a: self T): string; } { s := ""; for(; l != nil; l = tl l) s += (hd l).str() + " "; return s; }
id[T](x: T): T { return x; }
first[T, U](x: T, nil: U): T { return x; }
rep[T](x: T, n: int): list of T { l: list of T; while(n-- > 0) l = x :: l; return l; }
toarr[T](l: list of T): array of T { a := array[len l] of T; for(i := 0; l != nil; l = tl l) a[i++] = hd l; return a; }
app(f: ref fn(x: int): int, n, x: int): int { while(n-- > 0) x = f(x); return x; }
inc(x: int): int { return x + 1; }
dbl(x: int): int { return 2 * x; }
compose(a, b: ref fn(x: int): int): array of ref fn(x: int): int { return array[] of { a, b, inc }; }
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH;
	s := ref Stack[string](nil, 0);
	for(i := 0; i < 5; i++) s.push(sys->sprint("s%d", i));
	sys->print("%s %d %s\n", s.pop(), s.n, hd s.rev());
	k := ref Stack[ref Key](nil, 0);
	names := array[] of {"zeta", "alpha", "Ωmega", "beta", "alpha"};
	for(i = 0; i < len names; i++) k.push(ref Key(names[i], (i*7)%3));
	ka := toarr(k.rev());
	sort(ka);
	for(i = 0; i < len ka; i++) sys->print("%s ", ka[i].str());
	sys->print("\n%s\n", show(k.items));
	sys->print("%s %d\n", id("x") + first("a", ref Key("q", 1)), len rep("z", 4));
	l := ref Stack[list of string](nil, 0);
	l.push("a" :: "b" :: nil); l.push(nil); l.push(s.items);
	sys->print("%d %d %d\n", len l.pop(), len l.pop(), len l.pop());
	{ l.pop(); } exception e { "*" => sys->print("empty: %s\n", e); }
	fs := compose(inc, dbl);
	for(i = 0; i < len fs; i++) sys->print("%d ", app(fs[i], 5, 3));
	sys->print("\n");
	c := chan[2] of ref fn(x: int): int; c <-= dbl; c <-= fs[0];
	f := <-c; g := <-c; sys->print("%d %d\n", f(g(10)), g(f(10)));
	nilf: ref fn(x: int): int;
	{ sys->print("%d\n", nilf(1)); } exception e { "*" => sys->print("nilf: %s\n", e); }
	st := array[3] of ref Stack[array of int];
	for(i = 0; i < 3; i++) { st[i] = ref Stack[array of int]; st[i].push(array[i+1] of {* => i}); }
	sys->print("%d %d\n", len st[2].pop(), (st[1].pop())[1]);
}

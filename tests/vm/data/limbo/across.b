implement Across;
include "sys.m"; sys: Sys;
include "draw.m";
include "other.m"; other: Other;
Across: module { init: fn(nil: ref Draw->Context, argv: list of string); };
P: adt { x: int; s: string; next: cyclic ref P; };
c: chan of int;
inner(p: ref P, n: int): int { s := p.s + string n; r := other->ask(c, n); return r + len s; }
middle(a: array of string, p: ref P, n: int): int { t := a[n % len a] + "m"; l := t :: a[0] :: nil; r := inner(p, n); return r + len t + len l; }
outer(n: int): int { a := array[] of { "zero" + string n, "one", "two" + string (n / 2) }; p := ref P(n, "p", ref P(n+1, "q", nil)); r := middle(a, p, n); return r + len a[1] + p.next.x; }
back(n: int): int { s := string n + "b"; r := outer(n + 1); return r + len s; }
feeder() { for(i := 0;; i++) c <-= i; }
run(n: int): (int, int)
{
	t := 0; e := 0;
	for(i := 0; i < n; i++) {
		{ t += outer(i); if(i % 3 == 0) t += other->deep(back, i); } exception ex { "other:*" => e += len ex; }
	}
	return (t, e);
}
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH; other = load Other Other->PATH;
	if(other == nil) { sys->print("%r\n"); return; }
	c = chan of int; spawn feeder();
	for(k := 0; k < 2; k++) { (t, e) := run(300); sys->print("%d %d\n", t, e); }
	fd := sys->open("/prog/" + string sys->pctl(0, nil) + "/ctl", Sys->OWRITE); sys->fprint(fd, "killgrp");
}

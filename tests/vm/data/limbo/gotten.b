implement Gotten;
include "sys.m"; sys: Sys; print, sprint: import sys;
include "draw.m";
Gotten: module { init: fn(nil: ref Draw->Context, argv: list of string); };
include "giver.m"; giver: Giver; R: import giver;
gs: string; gn: int; gr: R; gt: (int, string);
A: adt { k: int; s: string; r: R; t: (int, string); };
snd[T](c: chan of T, x: T) { c <-= x; }
own(c: chan of R): R { return <-c; }
sr(c: chan of R, r: R) { c <-= r; }
st(c: chan of (int, string), n: int, s: string) { c <-= (n, s); }
si(c: chan of int, n: int) { c <-= n; }
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH; giver = load Giver Giver->PATH; if(giver == nil) { print("%r\n"); return; }
	cs := chan of string; a := ref A; arr := array[3] of string; ra := array[2] of A; cn := chan of int; cr := chan of R; ct := chan of (int, string);
	spawn snd(cs, "loc"); s := giver->str(cs); print("%s\n", s);
	spawn snd(cs, "glob"); gs = giver->str(cs); print("%s\n", gs);
	spawn snd(cs, "field"); a.s = giver->str(cs); print("%s\n", a.s);
	spawn snd(cs, "elem"); arr[1] = giver->str(cs); print("%s\n", arr[1]);
	spawn snd(cs, "aelem"); ra[1].s = giver->str(cs); print("%s\n", ra[1].s);
	spawn si(cn, 5); gn = giver->num(cn); spawn si(cn, 6); a.k = giver->num(cn); spawn si(cn, 7); print("%d %d %d\n", gn, a.k, giver->num(cn));
	spawn sr(cr, R(1, "r")); r := giver->rec(cr); spawn sr(cr, R(2, "s")); gr = giver->rec(cr); spawn sr(cr, R(3, "t")); a.r = giver->rec(cr); spawn sr(cr, R(4, "u")); ra[0].r = giver->rec(cr); print("%d%s %d%s %d%s %d%s\n", r.n, r.s, gr.n, gr.s, a.r.n, a.r.s, ra[0].r.n, ra[0].r.s);
	spawn st(ct, 1, "p"); gt = giver->pass(ct); spawn st(ct, 2, "q"); a.t = giver->pass(ct); spawn st(ct, 3, "w"); (x, y) := giver->pass(ct); print("%d%s %d%s %d%s\n", gt.t0, gt.t1, a.t.t0, a.t.t1, x, y);
	cb := chan[1] of (big, string, real); cb <-= (big 1 << 40, "big", 2.5); (p, q, z) := giver->tup(cb); print("%bd %s %g\n", p, q, z);
	spawn sr(cr, R(9, "own")); gr = own(cr); print("%d%s\n", gr.n, gr.s); spawn sr(cr, R(10, "own")); a.r = own(cr); print("%d%s\n", a.r.n, a.r.s);
	cf := chan[1] of ref R; cf <-= ref R(5, "ref"); print("%s\n", giver->refr(cf).s); cf <-= nil; print("%d\n", giver->refr(cf) == nil);
	spawn snd(cs, "two"); print("%s\n", giver->two(nilc(), cs)); spawn snd(cs, "any"); print("%s\n", giver->any(cs)); for(i := 0; i < 1000; i++){ spawn snd(cs, string i); s = giver->str(cs); } print("%s\n", s);
	l: list of string; for(i = 0; i < 5; i++){ spawn snd(cs, "l" + string i); l = giver->str(cs) :: l; } for(; l != nil; l = tl l) print("%s ", hd l); print("\n"); for(i = 0; i < 3; i++) { spawn snd(cs, "deep"); print("%s%s ", rdeep(cs, 20), gs); } print("\n");
}
nilc(): chan of string { return chan of string; }
rdeep(c: chan of string, n: int): string { if(n == 0) return giver->str(c); return rdeep(c, n - 1); }

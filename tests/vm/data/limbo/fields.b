implement Fields;
include "sys.m";
	sys: Sys;
include "draw.m";
Fields: module { init: fn(nil: ref Draw->Context, nil: list of string); };
In: adt { a: int; s: string; b: byte; r: real; };
Out: adt { i: In; arr: array of In; l: list of In; t: (In, int); c: chan of In; };
mk(n: int): In { return In(n, "s" + string n, byte n, real n + 0.5); }
show(i: In): string { return sys->sprint("%d%s%d%g", i.a, i.s, int i.b, i.r); }
change(o: ref Out): In { o.i.a++; o.arr[0].s += "+"; o.t.t0.s = "t"; return o.i; }
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH;
	o := ref Out(mk(1), array[] of {mk(2), mk(3)}, mk(4) :: mk(5) :: nil, (mk(6), 7), chan[2] of In);
	sys->print("%s %s\n", show(change(o)), show(o.arr[0]));
	o.c <-= o.i;
	o.c <-= hd o.l;
	o.arr[1] = <-o.c;
	o.i = <-o.c;
	o.t.t0 = o.arr[1];
	sys->print("%s %s %s\n", show(o.arr[1]), show(o.i), show(o.t.t0));
	(o.i, o.arr[0]) = (o.arr[0], o.i);
	sys->print("%s %s\n", show(o.i), show(o.arr[0]));
	{ o.arr[5] = mk(9); } exception e { "*" => sys->print("%s\n", e); }
	o.arr = nil;
	{ o.i = o.arr[0]; } exception e { "*" => sys->print("%s %s\n", e, show(o.i)); }
	n: ref Out;
	{ n.i = mk(3); } exception e { "*" => sys->print("%s\n", e); }
	{ n.t = (mk(1), 2); } exception e { "*" => sys->print("%s\n", e); }
	{ o.i = <-n.c; } exception e { "*" => sys->print("%s\n", e); }
	x := *o;
	x.i.s = "copy";
	x.l = tl x.l;
	sys->print("%s %s %d %d\n", show(x.i), show(o.i), len x.l, len o.l);
}

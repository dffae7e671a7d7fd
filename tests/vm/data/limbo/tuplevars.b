implement Tuplevars;
# Variables of the module that tuples come to whole: results of another module, values of channels.
include "sys.m";
	sys: Sys;
include "draw.m";
include "pairs.m";
	pairs: Pairs;
Tuplevars: module
{
	init: fn(nil: ref Draw->Context, nil: list of string);
};
gt: (int, string);
ct: (int, string);
tt: (string, list of string, (int, string));
rt: (real, string, int);
after := 77;
sender(c: chan of (int, string), d: chan of (real, string, int))
{
	for(i := 0; i < 3; i++) {
		c <-= (i, "sent" + string i);
		d <-= (real i / 2.0, "d" + string i, i * 7);
	}
}
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH;
	pairs = load Pairs Pairs->PATH;
	gt = pairs->pair(3);
	(n, s) := gt;
	sys->print("%d %s %d\n", n, s, after);
	gt = pairs->pair(4);
	sys->print("%d %s\n", gt.t0, gt.t1);
	tt = pairs->triple("ab");
	(a, l, (k, m)) := tt;
	sys->print("%s %s %d %s %d\n", a, hd tl l, k, m, after);
	c := chan of (int, string);
	d := chan[2] of (real, string, int);
	spawn sender(c, d);
	for(i := 0; i < 3; i++) {
		ct = <-c;
		rt = <-d;
		sys->print("%d %s %g %s %d %d\n", ct.t0, ct.t1, rt.t0, rt.t1, rt.t2, after);
	}
	ct = (9, nil);
	sys->print("%d [%s] %d %s\n", ct.t0, ct.t1, gt.t0, gt.t1);
}

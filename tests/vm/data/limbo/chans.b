implement Chans;
include "sys.m"; sys: Sys;
include "draw.m";
Chans: module { init: fn(nil: ref Draw->Context, argv: list of string); };
Msg: adt { id: int; data: array of int; reply: chan of (int, string); next: cyclic ref Msg; };
server(c: chan of ref Msg, quit: chan of int)
{
	n := 0;
	for(;;) alt {
	m := <-c =>
		s := 0;
		for(i := 0; i < len m.data; i++) s += m.data[i];
		m.reply <-= (m.id, sys->sprint("sum %d n %d next %d", s, n++, m.next != nil));
	q := <-quit =>
		quit <-= q + n;
		return;
	}
}
fan(cs: array of chan of int, out: chan of (int, int), k: int)
{
	for(i := 0; i < k; i++) { (j, v) := <-cs; out <-= (j, v); }
	out <-= (-1, -1);
}
put(c: chan of int, base, n: int) { for(i := 0; i < n; i++) c <-= base + i; }
filter(in, out: chan of int, p: int) { for(;;) { v := <-in; if(v % p) out <-= v; if(v < 0) { out <-= v; return; } } }
gen(c: chan of int, n: int) { for(i := 2; i < n; i++) c <-= i; c <-= -1; }
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH;
	c := chan of ref Msg; quit := chan of int;
	spawn server(c, quit);
	last: ref Msg;
	for(i := 0; i < 5; i++) {
		m := ref Msg(i, array[i] of { * => i }, chan of (int, string), last);
		last = m;
		c <-= m;
		(id, s) := <-m.reply;
		sys->print("%d %s\n", id, s);
	}
	quit <-= 100;
	sys->print("quit %d\n", <-quit);
	cs := array[3] of chan of int;
	for(i = 0; i < 3; i++) cs[i] = chan[i] of int;
	out := chan of (int, int);
	spawn fan(cs, out, 12);
	for(i = 0; i < 3; i++) spawn put(cs[i], 100*i, 4);
	tot := array[3] of {* => 0};
	for(;;) { (j, v) := <-out; if(j < 0) break; tot[j] += v; }
	sys->print("fan %d %d %d\n", tot[0], tot[1], tot[2]);
	# sieve
	src := chan of int; spawn gen(src, 60); cur := src;
	for(;;) { p := <-cur; if(p < 0) break; sys->print("%d ", p); nx := chan of int; spawn filter(cur, nx, p); cur = nx; }
	sys->print("\n");
	# buffered
	b := chan[3] of string;
	for(i = 0; i < 3; i++) b <-= sys->sprint("b%d", i);
	sent := 0;
	b2 := chan[1] of string;
	for(i = 0; i < 6; i++) alt {
		b2 <-= "more" => sent++;
		s := <-b => sys->print("got %s\n", s);
		* => sys->print("none\n");
	}
	sys->print("sent %s\n", "some"[0:sent%2+2]);
	# nested tuple channel, real, byte, big
	tc := chan[1] of (int, (real, string), byte, big);
	tc <-= (1, (2.5, "x"), byte 300, big 1 << 40);
	tt := <-tc; (a, rs, by, bg) := tt; (r, s) := rs;
	sys->print("%d %g %s %d %bd\n", a, r, s, int by, bg);
	cc := chan of chan of int; spawn echo(cc); k := chan of int; cc <-= k; sys->print("%d\n", <-k);
	# alt on nil in array, all nil blocks? use with default
	na := array[2] of chan of int;
	na[1] = chan[1] of int; na[1] <-= 42;
	alt { (w, v) := <-na => sys->print("arr %d %d\n", w, v); * => sys->print("no\n"); }
	alt { (w, v) := <-na => sys->print("arr %d %d\n", w, v); * => sys->print("no\n"); }
	nilc: chan of int;
	{ nilc <-= 1; } exception e { "*" => sys->print("e: %s\n", e); }
	{ alt { v := <-nilc => sys->print("%d\n", v); * => ; } } exception e { "*" => sys->print("e: %s\n", e); }
	{ alt { <-na => ; nilc <-= 1 => ; } } exception e { "*" => sys->print("e: %s\n", e); }
}
echo(cc: chan of chan of int) { k := <-cc; k <-= 77; }

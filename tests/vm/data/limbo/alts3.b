implement Alts3;
include "sys.m";
	sys: Sys;
include "draw.m";
Alts3: module { init: fn(nil: ref Draw->Context, nil: list of string); };
R: adt { n: int; s: string; t: (int, string); };
Q: adt { c: chan of (int, string); d: chan of ref R; cs: array of chan of (string, int); };
gr: ref R;
producer(q: ref Q, n: int)
{
	for(i := 0; i < n; i++) {
		q.c <-= (i, "c" + string i);
		q.d <-= ref R(i, "d", (i * i, "sq"));
		q.cs[i % len q.cs] <-= ("s" + string i, i);
	}
	q.c <-= (-1, nil);
}
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH;
	q := ref Q(chan of (int, string), chan of ref R, array[3] of {* => chan of (string, int)});
	spawn producer(q, 6);
	x := ref R(0, nil, (0, nil));
	a := array[4] of (int, string);
	k := 0;
	lp: for(;;) alt {
	(n, s) := <-q.c =>
		if(n < 0) break lp;
		sys->print("c %d %s\n", n, s);
		a[k++ & 3] = (n, s);
	gr = <-q.d =>
		x.t = gr.t;
		x.s = gr.s + string gr.n;
		sys->print("d %s %d %s\n", x.s, x.t.t0, x.t.t1);
	(i, (s, n)) := <-q.cs =>
		sys->print("s %d %s %d\n", i, s, n);
	}
	for(i := 0; i < len a; i++) sys->print("%d %s\n", a[i].t0, a[i].t1);
	b := chan[3] of (int, string);
	for(i = 0; i < 5; i++) alt { b <-= (i, "b") => sys->print("put %d\n", i); * => sys->print("full\n"); }
	for(i = 0; i < 5; i++) alt { a[0] = <-b => sys->print("got %d%s\n", a[0].t0, a[0].t1); * => sys->print("empty\n"); }
	x.t = (5, "kept");
	nb := chan of (int, string);
	alt { x.t = <-nb => ; * => sys->print("%d %s\n", x.t.t0, x.t.t1); }
}

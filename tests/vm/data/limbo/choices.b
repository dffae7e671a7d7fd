implement Choices;
include "sys.m"; sys: Sys; print: import sys;
include "draw.m";
Choices: module { init: fn(nil: ref Draw->Context, argv: list of string); };
Rec: adt { n: int; s: string; r: int; };
prod(c: chan of (int, string), id, n: int) { for(i := 0; i < n; i++) c <-= (id, sys->sprint("%d.%d", id, i)); c <-= (-1, nil); }
fan(n: int)
{
	a := array[n] of chan of (int, string);
	for(i := 0; i < n; i++){ a[i] = chan of (int, string); spawn prod(a[i], i, i + 2); }
	live := n; tot := 0; cnt := array[n] of {* => 0};
	while(live > 0) alt {
		(i2, (id, s)) := <-a =>
			if(id < 0){ live--; a[i2] = nil; print("end %d\n", i2); continue; }
			if(id != i2) print("mismatch\n");
			cnt[i2]++; tot += len s; print("%s ", s);
	}
	for(i = 0; i < n; i++) print("%d,", cnt[i]);
	print(" tot %d\n", tot);
}
mixed()
{
	out := chan of int; in := chan of string; stop := chan of int; arr := array[3] of {* => chan[2] of Rec};
	spawn consumer(out, in, stop);
	arr[1] <-= Rec(5, "buf", 15); arr[1] <-= Rec(6, "buf2", 25);
	k := 0; got := 0; s := 0;
	for(;;) {
		if(got == 8) break;
		alt {
		out <-= k => k++; s += k;
		m := <-in => print("in %s\n", m); got++;
		(i, r) := <-arr => print("arr %d %d %s %d\n", i, r.n, r.s, r.r); got++;
		}
	}
	stop <-= 1;
	print("%d\n", got);
}
consumer(out: chan of int, in: chan of string, stop: chan of int)
{
	n := 0;
	for(;;) alt {
	v := <-out => n++; if(n <= 6) in <-= "c" + string v;
	<-stop => return;
	}
}
nb()
{
	c := chan[2] of int; d := chan of big; e := array[2] of {* => chan[1] of byte};
	for(i := 0; i < 4; i++) alt { c <-= i => print("put %d ", i); * => print("full "); }
	for(i = 0; i < 4; i++) alt { v := <-c => print("got %d ", v); b := <-d => print("b %bd", b); * => print("empty "); }
	alt { d <-= big 1 => print("?"); * => print("no reader "); }
	e[1] <-= byte 7;
	for(i = 0; i < 2; i++) alt { (j, b) := <-e => print("e%d=%d ", j, int b); * => print("none "); }
	print("\n");
}
chanchan()
{
	srv := chan of (string, chan of (int, string));
	spawn server(srv);
	for(l := "abc" :: "" :: "xyzzy" :: nil; l != nil; l = tl l){
		r := chan of (int, string); srv <-= (hd l, r); (n, s) := <-r; print("%d %s;", n, s);
	}
	srv <-= (nil, nil);
	cc := chan of chan of chan of string; spawn deep(cc); c3 := <-cc; c2 := chan of string; spawn rd(c2); c3 <-= c2; 
	print("%s\n", <-done);
}
done: chan of string;
rd(c: chan of string) { done <-= "rd:" + <-c; }
deep(cc: chan of chan of chan of string) { c := chan of chan of string; cc <-= c; s := <-c; s <-= "deep"; }
server(srv: chan of (string, chan of (int, string)))
{
	for(;;){ (s, r) := <-srv; if(r == nil) return; x := ""; for(i := len s - 1; i >= 0; i--) x[len x] = s[i]; r <-= (len s, x); }
}
same()
{
	c := chan of int; 
	{ alt { c <-= 1 => print("s\n"); v := <-c => print("r %d\n", v); } } exception e { "*" => print("exc %s\n", e); }
	n: chan of int;
	{ alt { v := <-n => print("r %d\n", v); * => print("star\n"); } } exception e { "*" => print("exc %s\n", e); }
	{ <-n; } exception e { "*" => print("exc %s\n", e); }
	na := array[3] of chan of int;
	alt { (i, v) := <-na => print("r %d %d\n", i, v); * => print("nil array none\n"); }
	z: array of chan of int;
	{ alt { (i, v) := <-z => print("r %d %d\n", i, v); * => print("nil none\n"); } } exception e { "*" => print("exc %s\n", e); }
}
fair()
{
	a := chan[100] of int; b := chan[100] of int; na := nb2 := 0;
	for(i := 0; i < 100; i++){ a <-= i; b <-= i; }
	for(i = 0; i < 100; i++) alt { <-a => na++; <-b => nb2++; }
	print("%d %d\n", na, nb2);
}
big2()
{
	c := chan of Rec; d := chan[3] of (array of int, list of string); spawn pr(c, d);
	for(i := 0; i < 3; i++){ r := <-c; (a, l) := <-d; print("%d %s %d %d %s\n", r.n, r.s, r.r, a[i], hd l); }
}
pr(c: chan of Rec, d: chan of (array of int, list of string)) { for(i := 0; i < 3; i++){ c <-= Rec(i, string i, i * 2); d <-= (array[3] of {* => i*i}, "l"+string i :: nil); } }
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH; done = chan of string;
	fan(4); mixed(); nb(); chanchan(); same(); fair(); big2();
}

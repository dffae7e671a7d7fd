implement Excs2;
include "sys.m"; sys: Sys;
include "draw.m";
Excs2: module { init: fn(nil: ref Draw->Context, argv: list of string); };
A: exception(int, string);
B: exception(ref Node, array of int);
C: exception;
Node: adt { v: int; l: cyclic ref Node; };
thrower(n: int) raises (A, B, C)
{
	case n {
	0 => raise A(42, "forty-two");
	1 => raise B(ref Node(7, ref Node(8, nil)), array[] of {1, 2, 3});
	2 => raise C;
	3 => raise "fail:string";
	4 => a := array[2] of int; a[n] = 1;
	5 => x: ref Node; x.v = 1;
	6 => raise "fail:" + string n + ":more";
	7 => raise "";
	8 => l: list of int; sys->print("%d\n", hd l);
	9 => s := "abc"; sys->print("%c\n", s[n]);
	10 => a := array[-n] of int; a = nil;
	11 => m := load Excs2 "/none.dis"; m->init(nil, nil);
	12 => c: chan of int; <-c;
	}
	sys->print("no exception %d\n", n);
}
once(n: int): string
{
	{
		thrower(n);
		return "none";
	} exception e {
	A => (i, s) := e; return sys->sprint("A %d %s", i, s);
	B => (r, a) := e; return sys->sprint("B %d %d %d", r.v, r.l.v, a[2]);
	C => return "C";
	"fail:*:*" => return "pattern with colon " + e;
	"fail:*" => return "fail " + e[5:];
	"array*" => return "array: " + e;
	"" => return "empty";
	"*" => return "any " + e;
	}
}
deep(k, n: int): int
{
	if(k == 0) thrower(n);
	x := array[k] of int;
	r := deep(k-1, n) + len x;
	return r;
}
two(n: int): string
{
	{
		{ deep(5, n); } exception e { C => return "inner C"; "array*" => raise "again " + e; "x*" => return "x"; }
		return "through";
	} exception e {
	A => (i, nil) := e; return "outer A" + string i;
	"again*" => return "re: " + e;
	* => return "star";
	}
}
loop(): int
{
	n := 0;
	for(i := 0; i < 200; i++) {
		{ if(i % 3 == 0) raise "three"; if(i % 5 == 0) raise A(i, nil); n++; } exception e { "three" => n += 100; A => (v, nil) := e; n += v; }
	}
	return n;
}
proc(c: chan of string, n: int)
{
	{ thrower(n); c <-= "done"; } exception e { "*" => c <-= "p:" + e; A or B or C => c <-= "typed"; }
}
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH;
	for(i := 0; i < 13; i++) sys->print("%d: %s\n", i, once(i));
	for(i = 0; i < 7; i++) sys->print("%d: %s\n", i, two(i));
	sys->print("loop %d\n", loop());
	c := chan of string;
	for(i = 0; i < 7; i++) { spawn proc(c, i); sys->print("%s\n", <-c); }
	{ thrower(0); } exception e { "*" => sys->print("as string %s\n", e); }
	{ deep(3, 0); } exception e { "*" => sys->print("deep string %s\n", e); }
	sys->print("%r\n");
	sys->werrstr("mine"); sys->print("%r\n");
	{ raise C; } exception { C => sys->print("c\n"); }
	r := two(4);
	sys->print("%s\n", r);
	thrower(6);
}

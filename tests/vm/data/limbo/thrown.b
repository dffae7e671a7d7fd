implement Exca;
include "sys.m"; sys: Sys; print, sprint: import sys;
include "draw.m";
Exca: module { init: fn(nil: ref Draw->Context, argv: list of string); };
Bad: exception(int, string);
Odd: exception;
Deep: exception(ref Info, list of string, real);
Info: adt { a: array of string; n: big; };
log: string;
thrower(n: int) raises (Bad, Odd, Deep)
{
	case n {
	0 => raise Bad(42, "forty-two");
	1 => raise Odd;
	2 => raise Deep(ref Info(array[] of {"p", "q"}, big 1 << 33), "l" :: nil, 2.5);
	3 => raise "plain";
	4 => raise "prefix:rest";
	5 => a := array[2] of int; a[n] = 1;
	6 => x: ref Info; x.n = big 1;
	7 => z := 0; z = 5 / z;
	8 => b := array[n - 20] of int; b = nil;
	9 => s := "abc"; n = s[n];
	10 => l: list of int; n = hd l;
	11 => s := "abc"; s = s[2:1+n-11];
	12 => m: Exca; m->init(nil, nil);
	13 => c: chan of int; c <-= 1;
	14 => raise "";
	15 => raise "fail:x";
	}
}
catcher(n: int): string
{
	{
		thrower(n);
		return "none";
	} exception e {
	Bad => (i, s) := e; return sprint("Bad %d %s", i, s);
	Odd => return "Odd";
	Deep => (i, l, r) := e; return sprint("Deep %s %bd %s %g", i.a[1], i.n, hd l, r);
	"plain" => return "P:" + e;
	"prefix:*" => return "X:" + e;
	"array*" or "neg*" => return "A:" + e;
	"*" => return "*:" + e;
	}
}
level3(n: int): int { log += "3"; if(n % 2) raise "odd:" + string n; return n; }
level2(n: int): int
{
	{ log += "2"; return level3(n) + 1; }
	exception e { "odd:1" => log += "r"; raise "again:" + e; "odd:3*" => log += "s"; return -3; }
}
level1(n: int): int
{
	{ { log += "1"; return level2(n) + 1; } exception e { "again:*" => log += "["; raise; } }
	exception e { "again:odd:1" => log += "]"; return -1; * => log += "*"; return -2; }
}
loops(): string
{
	s := "";
	for(i := 0; i < 8; i++){
		{
			if(i == 2) continue;
			if(i == 6) break;
			if(i % 3 == 0) raise "three";
			s += string i;
		} exception e { "th*" => s += "t"; if(i == 3) continue; s += "."; }
		s += ",";
	}
	return s;
}
cleanup(n: int): (string, int)
{
	r := "start"; a := array[10] of {* => n};
	{
		l := "x" :: "y" :: nil; t := (1, "two", array[3] of string);
		t.t2[n] = hd l;
		r = t.t2[n] + string a[n];
	} exception { "*" => r = "caught" + string len a; }
	return (r, a[9]);
}
deep(n: int): int { if(n == 0) raise Odd; return deep(n-1) + 1; }
inhandler(): string
{
	{ raise "first"; } exception e {
	"first" =>
		{ raise "second"; } exception f { "second" => return e + f; }
	}
	return "no";
}
twotypes(n: int): string raises Odd
{
	{ if(n) raise Odd; raise "str"; } exception e { "st*" => return e; }
}
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH;
	for(i := 0; i < 14; i++){ s := catcher(i); if(i == 7) s = s[0:2]; print("%d %s\n", i, s); }
	{ print("%s\n", catcher(15)); } exception e { * => print("outer\n"); }
	for(i = 0; i < 5; i++){ log = ""; n := level1(i); print("%d %d %s\n", i, n, log); }
	print("%s\n", loops());
	(r, n) := cleanup(1); print("%s %d\n", r, n);
	(r, n) = cleanup(7); print("%s %d\n", r, n);
	{ deep(50); } exception e { Odd => print("typed\n"); "*" => print("str %s\n", e); }
	{ deep(0); } exception e { Odd => print("typed\n"); "*" => print("str %s\n", e); }
	print("%s\n", inhandler());
	{ print("%s\n", twotypes(0)); print("%s\n", twotypes(1)); } exception e { Odd => print("odd\n"); }
	{ { raise Bad(1, "x"); } exception e { "*" => print("string? %s\n", e); } } exception e { Bad => (a, b) := e; print("bad %d %s\n", a, b); }
	{ raise Bad(2, nil); } exception e { * => print("star\n"); }
	c := chan of string;
	spawn proc(c); print("%s\n", <-c); print("%s\n", <-c);

}
proc(c: chan of string)
{
	{ c <-= "in proc"; raise "p:1"; } exception e { "p:*" => c <-= e; }
	raise "fail:quiet";
}

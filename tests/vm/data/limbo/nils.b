implement Nils;
include "sys.m";
	sys: Sys;
include "draw.m";
Nils: module { init: fn(nil: ref Draw->Context, nil: list of string); };
R: adt { n: int; s: string; r: cyclic ref R; a: array of int; };
side(n: int): (int, string) { sys->print("side %d ", n); return (n, "x"); }
one(n: int): int { sys->print("one %d ", n); return n; }
str(n: int): string { sys->print("str %d ", n); return string n; }
try(k: int)
{
	r, q: ref R;
	q = ref R(1, "q", nil, nil);
	{
		case k {
		0 => r.n = one(1);
		1 => r.s = str(2);
		2 => q.r.n = one(3);
		3 => q.a[0] = one(4);
		4 => (r.n, r.s) = side(5);
		5 => (q.n, r.s) = side(6);
		6 => q.r.r.r = q;
		7 => r.a = array[one(2)] of int;
		8 => c: chan of int; c <-= one(7);
		9 => c := chan[1] of int; c <-= 3; r.n = <-c;
		10 => c := chan[1] of string; c <-= "v"; alt { r.s = <-c => sys->print("got "); }
		11 => l: list of int; q.n = hd l;
		12 => q.n = len r.s;
		}
		sys->print("done %d %d\n", k, q.n);
	} exception e {
	"*" => sys->print("%d: %s %d %s\n", k, e, q.n, q.s);
	}
}
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH;
	for(i := 0; i < 13; i++) try(i);
}

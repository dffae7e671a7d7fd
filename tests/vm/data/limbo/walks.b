implement Picka;
include "sys.m"; sys: Sys; print: import sys;
include "draw.m";
Picka: module { init: fn(nil: ref Draw->Context, argv: list of string); };
Expr: adt {
	line: int;
	tag: string;
	pick {
	Num => v: real;
	Var => name: string;
	Bin => op: int; l, r: cyclic ref Expr;
	Call => f: string; args: cyclic list of ref Expr;
	Neg or Pos => e: cyclic ref Expr;
	Arr => a: cyclic array of ref Expr; n: big; b: byte;
	Nil =>
	}
	eval: fn(e: self ref Expr, env: list of (string, real)): real;
	text: fn(e: self ref Expr): string;
	size: fn(e: self ref Expr): int;
};
Expr.eval(e: self ref Expr, env: list of (string, real)): real
{
	pick x := e {
	Num => return x.v;
	Var =>
		for(l := env; l != nil; l = tl l){
			(n, v) := hd l;
			if(n == x.name) return v;
		}
		raise "undefined:" + x.name;
	Bin =>
		a := x.l.eval(env); b := x.r.eval(env);
		case x.op {
		'+' => return a+b;
		'-' => return a-b;
		'*' => return a*b;
		'/' => if(b == 0.0) raise "zero"; return a/b;
		* => raise sys->sprint("op:%c", x.op);
		}
	Call =>
		s := 0.0;
		case x.f {
		"sum" => for(l := x.args; l != nil; l = tl l) s += (hd l).eval(env);
		"max" => s = -1e300; for(l := x.args; l != nil; l = tl l) if((v := (hd l).eval(env)) > s) s = v;
		"count" => s = real len x.args;
		}
		return s;
	Neg => return -x.e.eval(env);
	Pos => return x.e.eval(env);
	Arr => t := 0.0; for(i := 0; i < len x.a; i++) t = t*10.0 + x.a[i].eval(env); return t + real x.n + real x.b;
	* => return -99.0;
	}
	return 0.0;
}
Expr.text(e: self ref Expr): string
{
	if(e == nil) return "<nil>";
	s := "";
	pick x := e {
	Num => s = string x.v;
	Var => s = x.name;
	Bin => s = "(" + x.l.text() + sys->sprint(" %c ", x.op) + x.r.text() + ")";
	Call => s = x.f + "("; for(l := x.args; l != nil; l = tl l){ s += (hd l).text(); if(tl l != nil) s += ", "; } s += ")";
	Neg => s = "-" + x.e.text();
	Pos => s = "+" + x.e.text();
	Arr => s = "["; for(i := 0; i < len x.a; i++) s += x.a[i].text() + ";"; s += sys->sprint("|%bd|%d]", x.n, int x.b);
	Nil => s = "nil";
	}
	return s + "@" + string e.line + e.tag;
}
Expr.size(e: self ref Expr): int
{
	n := 1;
	pick x := e {
	Bin => n += x.l.size() + x.r.size();
	Call => for(l := x.args; l != nil; l = tl l) n += (hd l).size();
	Neg or Pos => n += x.e.size();
	}
	return n;
}
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH;
	one := ref Expr.Num(1, "a", 1.0);
	two := ref Expr.Num(2, nil, 2.5);
	x := ref Expr.Var(3, "v", "x");
	e := ref Expr.Bin(4, "", '*', ref Expr.Bin(5, "", '+', one, x), ref Expr.Neg(6, "n", two));
	env := ("x", 4.0) :: ("y", 5.5) :: nil;
	print("%s = %g size %d\n", e.text(), e.eval(env), e.size());
	c := ref Expr.Call(7, nil, "sum", one :: two :: x :: e :: nil);
	print("%s = %g size %d\n", c.text(), c.eval(env), c.size());
	a := ref Expr.Arr(8, "arr", array[] of {one, two, ref Expr.Pos(9, "", x)}, big 1 << 40, byte 200);
	print("%s = %g\n", a.text(), a.eval(env));
	a.a[1] = e; a.b += byte 100;
	print("%s = %g\n", a.text(), a.eval(env));
	all := array[] of {one, x, e, c, a, ref Expr.Nil(10, "z")};
	for(i := 0; i < len all; i++)
		print("%d ", tagof all[i]);
	print("| %d %d %d\n", tagof Expr.Num, tagof Expr.Pos, tagof Expr.Nil);
	# conversion to common type and back
	f: ref Expr = one;
	pick y := f { Num => y.v = 7.0; y.line = 77; * => print("?\n"); }
	print("%s %s\n", one.text(), f.text());
	{ print("%g\n", (ref Expr.Var(1, "", "zz")).eval(env)); } exception s { "undefined:*" => print("exc %s\n", s); }
	{ print("%g\n", (ref Expr.Bin(1, "", '/', one, ref Expr.Num(0,"",0.0))).eval(env)); } exception s { "zero" => print("exc %s\n", s); }
	{ print("%g\n", (ref Expr.Bin(1, "", '%', one, one)).eval(env)); } exception s { "op*" => print("exc %s\n", s); }
	n: ref Expr;
	{ pick z := n { Num => print("num\n"); * => print("other\n"); } } exception s { "*" => print("exc %s\n", s); }
	# copy of a pick value
	v := ref *one; v.v = 3.25;
	print("%s %g\n", one.text(), v.v);
	w := v; w.tag = "copy";
	print("%s %s %d\n", w.text(), one.text(), w == one);
}

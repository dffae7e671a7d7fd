implement Expr;
include "sys.m"; sys: Sys;
include "draw.m";
include "string.m"; str: String;
Expr: module { init: fn(nil: ref Draw->Context, argv: list of string); };

Tree: adt {
	pos: int;
	pick {
	Num => v: big;
	Rat => num, den: int;
	Name => name: string;
	Un => op: int; e: cyclic ref Tree;
	Bin => op: int; l, r: cyclic ref Tree;
	Call => fname: string; args: list of ref Tree;
	}
	text: fn(t: self ref Tree): string;
	eval: fn(t: self ref Tree, env: list of (string, big)): big;
	depth: fn(t: self ref Tree): int;
};
Unbound: exception(string, int);
Div: exception;
src: string; at: int;

peek(): int { while(at < len src && (src[at] == ' ' || src[at] == '\t')) at++; if(at >= len src) return -1; return src[at]; }
expect(c: int) { if(peek() != c) raise sys->sprint("syntax:%d: expected %c", at, c); at++; }
expr(): ref Tree
{
	l := term();
	for(;;) case peek() {
	'+' or '-' => c := src[at++]; l = ref Tree.Bin(at, c, l, term());
	* => return l;
	}
}
term(): ref Tree
{
	l := factor();
	while((c := peek()) == '*' || c == '/' || c == '%') { at++; l = ref Tree.Bin(at, c, l, factor()); }
	return l;
}
factor(): ref Tree
{
	p := at;
	c := peek();
	if(c == '-' || c == '~') { at++; return ref Tree.Un(p, c, factor()); }
	if(c == '(') { at++; t := expr(); expect(')'); return t; }
	if(c >= '0' && c <= '9') {
		s := at;
		while(at < len src && src[at] >= '0' && src[at] <= '9') at++;
		if(peek() == '@') { n := int src[s:at]; at++; d := at; while(at < len src && src[at] >= '0' && src[at] <= '9') at++; return ref Tree.Rat(p, n, int src[d:at]); }
		return ref Tree.Num(p, big src[s:at]);
	}
	if(c >= 'a' && c <= 'z' || c > 127) {
		s := at;
		while(at < len src && (src[at] >= 'a' && src[at] <= 'z' || src[at] > 127)) at++;
		name := src[s:at];
		if(peek() != '(') return ref Tree.Name(p, name);
		at++;
		args: list of ref Tree;
		while(peek() != ')') { args = expr() :: args; if(peek() == ',') at++; }
		at++;
		r: list of ref Tree;
		for(; args != nil; args = tl args) r = hd args :: r;
		return ref Tree.Call(p, name, r);
	}
	raise sys->sprint("syntax:%d: unexpected %c", at, c);
}
Tree.text(t: self ref Tree): string
{
	pick x := t {
	Num => return string x.v;
	Rat => return sys->sprint("%d@%d", x.num, x.den);
	Name => return x.name;
	Un => return sys->sprint("(%c %s)", x.op, x.e.text());
	Bin => return sys->sprint("(%c %s %s)", x.op, x.l.text(), x.r.text());
	Call =>
		s := x.fname + "[";
		for(a := x.args; a != nil; a = tl a) { s += (hd a).text(); if(tl a != nil) s += ";"; }
		return s + "]";
	}
}
Tree.depth(t: self ref Tree): int
{
	pick x := t {
	Un => return 1 + x.e.depth();
	Bin => l := x.l.depth(); r := x.r.depth(); if(l > r) return l+1; return r+1;
	Call => m := 0; for(a := x.args; a != nil; a = tl a) if((d := (hd a).depth()) > m) m = d; return m+1;
	* => return 1;
	}
}
lookup(n: string, p: int, env: list of (string, big)): big raises (Unbound)
{
	for(; env != nil; env = tl env) { (k, v) := hd env; if(k == n) return v; }
	raise Unbound(n, p);
}
Tree.eval(t: self ref Tree, env: list of (string, big)): big
{
	pick x := t {
	Num => return x.v;
	Rat => return big x.num / big x.den;
	Name => return lookup(x.name, x.pos, env);
	Un => case x.op { '-' => return -x.e.eval(env); '~' => return ~x.e.eval(env); * => raise "un"; }
	Bin =>
		a := x.l.eval(env); b := x.r.eval(env);
		case x.op { '+' => return a+b; '-' => return a-b; '*' => return a*b;
		'/' => if(b == big 0) raise Div; return a/b;
		'%' => if(b == big 0) raise Div; return a%b; }
	Call =>
		n := big 0; k := 0;
		for(a := x.args; a != nil; a = tl a) {
			v := (hd a).eval(env);
			case x.fname { "sum" => n += v; "max" => if(k == 0 || v > n) n = v; "min" => if(k == 0 || v < n) n = v; "größe" => n = n * big 10 + v; * => raise "fail:no function " + x.fname; }
			k++;
		}
		return n;
	}
	return big -1;
}
run(s: string)
{
	src = s; at = 0;
	{
		t := expr();
		if(peek() != -1) raise sys->sprint("syntax:%d: rest %q", at, src[at:]);
		sys->print("%s -> %s depth %d tag %d\n", s, t.text(), t.depth(), tagof t);
		env := ("x", big 7) :: ("y", big 16r100000000) :: ("Ω", big -1) :: nil;
		sys->print("   = %bd\n", t.eval(env));
	} exception e {
	Unbound => (n, p) := e; sys->print("   unbound %s at %d\n", n, p);
	Div => sys->print("   division\n");
	"syntax:*" => sys->print("   %s\n", e);
	"fail:*" => sys->print("   failed: %s\n", e[5:]);
	"zero divide" => sys->print("   zero divide caught\n");
	}
}
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH; str = load String String->PATH;
	run("1+2*3"); run("-(x+y)*2 % 1000"); run("sum(1,2,x,max(4,y,3)) - min(9,2,~0)");
	run("größe(1,2,3,Ω)"); run("7/(x-7)"); run("q+1"); run("(1+"); run("3 4"); run("foo(1)"); run("5@2*3@0"); run("9223372036854775807+1"); run("((((((((1))))))))");
	run("x %% 0"); run("$");
}

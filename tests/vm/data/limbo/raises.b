implement Raises;

# Raises strings and objects in all ways, again and again, and looks at what is left of them.

include "sys.m";
	sys: Sys;
include "draw.m";

Raises: module
{
	init:	fn(ctxt: ref Draw->Context, argv: list of string);
	other:	fn(n: int, s: string): int;
};

Plain: exception;
Full: exception(int, string, list of int);

me: Raises;
sum := 0;

init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH;
	me = load Raises "$self";
	for(i := 0; i < 300; i++){
		sum += strings(i);
		sum += objects(i);
		sum += nested(i);
		sum += far(i);
		sum += foreign(i);
		if(i % 60 == 0)
			sys->print("%d %d %r\n", i, sum);
	}
	c := chan of string;
	for(i = 0; i < 40; i++){
		spawn apart(i, c);
		s := <-c;
		if(i % 9 == 0)
			sys->print("%s; %r\n", s);
	}
	{
		deep(3000);
	} exception e {
	"bottom*" =>
		sys->print("%s %r\n", e);
	}
	wide := "wide";
	wide[1] = 16r1234;
	{
		raise wide + ":x";
	} exception e {
	"wide*" =>
		sys->print("wrong\n");
	"w\u1234de:*" =>
		sys->print("right %d %r\n", len e);
	}
}

text(n: int): string
{
	case n % 5 {
	0 =>	return "zero";
	1 =>	return "one:" + string n;
	2 =>	return "two";
	3 =>	return "";
	}
	return "o";
}

strings(n: int): int
{
	before := array[2] of { * => "kept" + string n };
	{
		raise "x" + text(n);
	} exception e {
	"xzero" =>
		return 1;
	"xone:*" =>
		return len e;
	"x" =>
		return 3 + len before[1];
	"x*" =>
		return 5 + len e;
	}
	return 1000;
}

throw(n: int) raises (Plain, Full)
{
	l := n :: n + 1 :: nil;
	if(n & 1)
		raise Plain;
	raise Full(n, text(n), l);
}

objects(n: int): int
{
	{
		throw(n);
	} exception e {
	Plain =>
		return 7;
	Full =>
		(i, s, l) := e;
		return i + len s + hd tl l;
	}
	return 1000;
}

below(n: int) { throw(n); }
lower(n: int) { if(n % 3 == 0) below(n); else throw(n); }

nested(n: int): int
{
	r := 0;
	{
		{
			lower(n);
		} exception e {
		Plain =>
			r = 1;
			raise;
		"Raises.*" =>
			r = 2 + len e;
			raise "again " + e;
		}
	} exception e {
	Plain =>
		r += 10;
	"again *" =>
		r += len e;
	* =>
		r += 100;
	}
	return r;
}

down(n: int, s: string): int
{
	l := s :: nil;
	if(n == 0)
		raise hd l;
	return down(n - 1, s + "a") + len l;
}

far(n: int): int
{
	{
		return down(n % 17, "far");
	} exception e {
	"farb*" =>
		return 1000;
	"far*" =>
		return len e;
	}
}

other(n: int, s: string): int
{
	if(n & 1)
		raise s;
	{
		raise "here";
	} exception {
	"here" =>
		return 2;
	}
	return 1000;
}

foreign(n: int): int
{
	{
		return me->other(n, "there");
	} exception e {
	"there" =>
		return len e;
	}
}

apart(n: int, c: chan of string)
{
	s := "";
	{
		raise "apart" + string n;
	} exception e {
	"apart*" =>
		s = e;
	}
	if(n % 2)
		c <-= sys->sprint("%s %r", s);
	else
		c <-= s;
}

deep(n: int)
{
	room := array[3] of string;
	if(n == 0)
		raise "bottom" + string len room;
	deep(n - 1);
	room = nil;
}

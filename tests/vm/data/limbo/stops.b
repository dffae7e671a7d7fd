implement Stops;

# Keeps references everywhere a process can have some: in frames of several modules, in channels
# and those who wait at them, in exceptions, in what it has spawned.

include "sys.m";
	sys: Sys;
include "draw.m";

Stops: module
{
	init:	fn(ctxt: ref Draw->Context, argv: list of string);
	work:	fn(depth: int, t: ref Tree): ref Tree;
	serve:	fn(c: chan of (ref Tree, chan of string));
};

Tree: adt
{
	left, right:	cyclic ref Tree;
	name:	string;
	pick {
	Leaf =>
		items:	array of string;
	Inner =>
		count:	int;
	}
	grow:	fn(t: self ref Tree, n: int): ref Tree;
};

Fault: exception(int, string, ref Tree);
Plain: exception;

me: Stops;
kept: list of ref Tree;

Tree.grow(t: self ref Tree, n: int): ref Tree
{
	if(n == 0)
		return t;
	l := (ref Tree.Leaf(nil, nil, "leaf" + string n, array[3] of {* => "item" + string n})).grow(n - 1);
	return ref Tree.Inner(l, t, "inner" + string n, n);
}

init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH;
	me = load Stops "$self";
	c := chan of (ref Tree, chan of string);
	spawn me->serve(c);
	spawn serve(c);
	f := apply;
	for(i := 0; i < 40; i++){
		t := me->work(i % 5, ref Tree.Leaf(nil, nil, "root" + string i, nil));
		kept = t :: kept;
		if(len kept > 3)
			kept = tl kept;
		answer := chan of string;
		c <-= (t, answer);
		s := <-answer;
		{
			f(i, s, t);
		} exception e {
		Fault =>
			(n, why, tree) := e;
			kept = tree :: kept;
			sys->print("%d %s\n", n, why);
		Plain =>
			sys->print("plain\n");
		"a *" =>
			sys->print("%s\n", e);
		}
	}
	c <-= (nil, nil);
	c <-= (nil, nil);
	sys->print("%d %d\n", len kept, total(hd kept));
}

work(depth: int, t: ref Tree): ref Tree
{
	t = t.grow(2);
	if(depth == 0)
		return t;
	t.name += t.left.name;
	if(depth & 1)
		return me->work(depth - 1, t);
	return work(depth - 1, t);
}

serve(c: chan of (ref Tree, chan of string))
{
	quiet := chan of int;
	back := chan[2] of ref Tree;
	for(;;){
		alt {
		(t, answer) := <-c =>
			if(answer == nil)
				return;
			spawn nest(t, back, 3);
			r := <-back;
			pick x := r {
			Leaf =>
				answer <-= x.name + string len x.items;
			Inner =>
				answer <-= x.name + string x.count;
			}
		<-quiet =>
			;
		}
	}
}

nest(t: ref Tree, back: chan of ref Tree, n: int)
{
	if(n > 0)
		spawn nest(t.grow(1), back, n - 1);
	else
		back <-= t;
}

apply(n: int, s: string, t: ref Tree)
{
	l := list of {s, t.name};
	case n % 5 {
	0 =>
		raise Fault(n, hd l, t);
	1 =>
		raise Plain;
	2 =>
		raise "a " + hd tl l;
	3 =>
		a := array[2] of ref Tree;
		{
			a[n] = t;
		} exception {
		"array bounds error" =>
			sys->print("bounds\n");
		}
	* =>
		sys->print("%s %d\n", s, total(t));
	}
}

total(t: ref Tree): int
{
	if(t == nil)
		return 0;
	return 1 + total(t.left) + total(t.right);
}

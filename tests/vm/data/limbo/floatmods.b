implement Floatmods;
include "sys.m"; sys: Sys;
include "draw.m";
include "math.m"; math: Math;
Calc: module { PATH: con "/floatcalc.dis"; third: fn(x, y: real): real; loop: fn(n: int): real; guarded: fn(x, y: real): string; run: fn(c: chan of real, n: int); };
Floatmods: module { init: fn(nil: ref Draw->Context, nil: list of string); };
one := 1.0; three := 3.0; zero := 0.0;
bt(x: real): string { return sys->sprint("%.16bux", math->realbits64(x)); }
apply(f: ref fn(x, y: real): real, x, y: real): real { return f(x, y); }
own(x, y: real): real { return x/y; }
watcher(c: chan of string)
{
	# begins quiet, before anybody knows of the words, stays as it is
	for(i := 0; i < 3; i++){
		s := 0.0;
		for(k := 1; k < 200; k++) s += one/real k;
		c <-= bt(s);
	}
}
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH; math = load Math Math->PATH;
	calc := load Calc Calc->PATH;
	if(calc == nil){ sys->print("no module %r\n"); return; }
	math->FPcontrol(0, 31);
	sys->sleep(0);
	for(m := 0; m < 4; m++){
		math->FPcontrol(m<<8, Math->RND_MASK);
		sys->print("%s %s %s %s\n", bt(calc->third(one, three)), bt(calc->loop(500)), bt(apply(own, one, three)), bt(own(-one, three)));
		c := chan of real;
		spawn calc->run(c, 300);
		sys->print("%s\n", bt(<-c));
		x := array[10] of {* => one/three};
		l: list of real;
		for(i := 0; i < 10; i++) l = x[i]*real i :: l;
		t := 0.0;
		for(; l != nil; l = tl l) t += hd l;
		sys->print("%s\n", bt(t));
		(p, q) := (one/three, (x[1], one/three));
		sys->print("%s %s\n", bt(p), bt(q.t1));
		x[3] += one/three; x[3] *= three; x[3] -= 0.1;
		sys->print("%s\n", bt(x[3]));
	}
	math->FPcontrol(0, Math->RND_MASK);
	sys->sleep(0);
	math->FPcontrol(Math->ZDIV|Math->INVAL, 31);
	sys->sleep(0);
	sys->print("%s\n", calc->guarded(one, zero));
	sys->print("%s\n", calc->guarded(one, 2.0));
	{
		calc->third(zero, zero);
		sys->print("not here\n");
	} exception e {
	"sys: fp:*" => sys->print("outer %s\n", e[0:8]);
	}
	{
		apply(own, one, zero);
		sys->print("not here\n");
	} exception e {
	"sys: fp:*" => sys->print("outer %s\n", e[0:8]);
	}
	calc = nil;
	sys->sleep(0);
	w := chan of string;
	spawn watcher(w);
	math->FPcontrol(Math->RND_PINF, Math->RND_MASK|31);
	sys->print("%s %s\n", <-w, bt(own(one, three)));
	sys->print("%s %s\n", <-w, bt(own(one, three)));
	math->FPcontrol(0, Math->RND_MASK|31);
	sys->print("%s %s\n", <-w, bt(own(one, three)));
	sys->print("%s\n", bt(one/zero));
}

implement Defaults;

# The control word that a program begins with: what Inferno printed on its emulator (-c0).

include "sys.m";
	sys: Sys;
include "draw.m";
include "math.m";
	math: Math;

Defaults: module { init: fn(nil: ref Draw->Context, nil: list of string); };

zero := 0.0; one := 1.0; three := 3.0; huge := 1e308; tiny := 3e-308;

Op: adt { name: string; x, y: real; };

show(name: string, op: int, x, y: real)
{
	{
		z := compute(op, x, y);
		sys->print("%s %s %.16bux\n", name, string z, math->realbits64(z));
	} exception e {
	"sys: fp: *" =>
		sys->print("%s raised %s\n", name, e[0:8]);
	}
}

compute(op: int, x, y: real): real
{
	case op {
	'+' =>	z := x + y; return z;
	'-' =>	z := x - y; return z;
	'*' =>	z := x * y; return z;
	'/' =>	z := x / y; return z;
	'i' =>	return real int x;
	'l' =>	return math->log(x);
	's' =>	return math->sqrt(x);
	'e' =>	return math->exp(x);
	'p' =>	return x ** 3;
	}
	return 0.0;
}

all()
{
	show("1/3", '/', one, three);
	show("1/0", '/', one, zero);
	show("0/0", '/', zero, zero);
	show("huge", '*', huge, huge);
	show("huge+", '+', huge*1.5, huge);
	show("tiny", '*', tiny, tiny);
	show("tiny/", '/', tiny, 16.0);
	show("0*3", '*', zero, three);
	show("3-3", '-', three, three);
	show("inf-inf", '-', Math->Infinity, Math->Infinity);
	show("inf+1", '+', Math->Infinity, one);
	show("int", 'i', 1e10, zero);
	show("int 2.5", 'i', 2.5, zero);
	show("log 0", 'l', zero, zero);
	show("log -1", 'l', -one, zero);
	show("sqrt -1", 's', -one, zero);
	show("sqrt 9", 's', 9.0, zero);
	show("exp 1000", 'e', 1000.0, zero);
	show("cube", 'p', 1e150, zero);
	show("cube of 3", 'p', three, zero);
}

loop(n: int): int
{
	found := 0;
	for(i := n; i >= 0; i--){
		{
			x := one/real i;
			if(x > zero)
				found++;
		} exception {
		"sys: fp: *" =>
			found = -found;
		}
	}
	return found;
}

init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH;
	math = load Math Math->PATH;
	sys->print("at first %x\n", math->getFPcontrol());
	all();
	sys->print("loop %d\n", loop(20000));
	old := math->FPcontrol(0, Math->INVAL|Math->ZDIV|Math->OVFL|Math->UNFL|Math->INEX);
	sys->print("quiet %x %x\n", old, math->getFPcontrol());
	sys->sleep(0);
	all();
	sys->print("loop %d\n", loop(20000));
}

implement Floats;

# Rounding, traps and status of reals: what Inferno printed on its emulator (-c0).

include "sys.m";
	sys: Sys;
include "draw.m";
include "math.m";
	math: Math;

Floats: module { init: fn(nil: ref Draw->Context, nil: list of string); };

ALL: con Math->INVAL|Math->ZDIV|Math->OVFL|Math->UNFL|Math->INEX;

zero := 0.0; one := 1.0; three := 3.0; ten := 10.0; huge := 1e308; tiny := 3e-308;
texts := array[] of {"0.1", "0.3", "-0.3", "1e400", "1e-320", "123456789012345678901234567890"};

bits(x: real): string
{
	return sys->sprint("%.16bux", math->realbits64(x));
}

st(): string
{
	return sys->sprint("%x", math->FPstatus(0, ALL));
}

div(x, y: real): string
{
	{
		z := x/y;
		return bits(z);
	} exception e {
	"sys: fp:*" =>
		return e[0:9];
	}
}

mul(x, y: real): string
{
	{
		z := x*y;
		return bits(z);
	} exception e {
	"sys: fp:*" =>
		return e[0:9];
	}
}

add(x, y: real): string
{
	{
		z := x+y;
		return bits(z);
	} exception e {
	"sys: fp:*" =>
		return e[0:9];
	}
}

whole(x: real): string
{
	{
		n := int x;
		return string n;
	} exception e {
	"sys: fp:*" =>
		return e[0:9];
	}
}

operations(m: big)
{
	sys->print("1/3 %s -1/3 %s %s\n", div(one, three), div(-one, three), st());
	sys->print("huge %s %s %s\n", mul(huge, ten), mul(-huge, ten), st());
	sys->print("tiny %s %s %s\n", div(tiny, ten), mul(tiny, -tiny), st());
	sys->print("1-1 %s 0+0 %s %s\n", add(one, -one), add(zero, zero), st());
	sys->print("1+eps %s %s %s\n", add(one, 1e-20), add(-one, 1e-20), st());
	sys->print("1/0 %s -1/0 %s %s\n", div(one, zero), div(-one, zero), st());
	sys->print("0/0 %s %s\n", div(zero, zero), st());
	sys->print("inf-inf %s %s\n", add(Math->Infinity, -Math->Infinity), st());
	sys->print("power %s %s %s\n", bits((one/ten) ** 7), bits(three ** -3), st());
	sys->print("big %s %s %s\n", bits(real m), bits(real -m), st());
	sys->print("int %s %s %s %s", whole(2.5*one), whole(-2.5*one), whole(2.4*one), whole(0.49999999999999994*one));
	sys->print(" %s\n", st());
	sys->print("int 1e10 %s %s\n", whole(1e10*one), st());
	sys->print("float %x %x %s\n", math->realbits32(0.1*one), math->realbits32(-0.1*one), st());
	sys->print("rint %g %g %g %s\n", math->rint(2.5), math->rint(-2.5), math->rint(2.3), st());
	for(i := 0; i < len texts; i++)
		sys->print("%s %s\n", texts[i], bits(real texts[i]));
	st();
	v := array[] of {0.1, 0.2, 0.3};
	sys->print("dot %s norm1 %s %s\n", bits(math->dot(v, v)), bits(math->norm1(v)), st());
	sys->print("exp %s cbrt %s hypot %s %s\n", bits(math->exp(one)), bits(math->cbrt(2.0)), bits(math->hypot(one, 2.0)), st());
	sys->print("log %s %s\n", bits(math->log(zero)), st());
	sys->print("acos %s %s\n", bits(math->acos(2.0)), st());
	s := 0.0;
	for(i = 1; i < 3000; i++)
		s += one/real i;
	sys->print("sum %s %s\n", bits(s), st());
	nan := zero/zero;
	st();
	r := "no";
	if(nan == one)
		r = "yes";
	sys->print("nan == 1 %s %s\n", r, st());
	r = "no";
	if(nan > one)
		r = "yes";
	sys->print("nan > 1 %s %s\n", r, st());
}

child(c: chan of int, mode: int)
{
	math->FPcontrol(mode, Math->RND_MASK);
	for(i := 0; i < 3; i++){
		<-c;
		sys->print("child %x %s\n", math->getFPcontrol(), div(one, three));
		c <-= i;
	}
}

trapped(what: int)
{
	math->FPcontrol(0, ALL);
	st();
	math->FPcontrol(what, ALL);
	sys->sleep(0);
	sys->print("trap %x:", math->getFPcontrol());
	sys->print(" %s", div(one, zero));
	sys->print(" %s", div(zero, zero));
	sys->print(" %s", mul(huge, ten));
	sys->print(" %s", mul(tiny, tiny));
	sys->print(" %s", div(one, three));
	sys->print(" %s", whole(1e10));
	sys->print(" %s", div(ten, 2.0));
	{
		sys->print(" %g", math->log(zero));
	} exception e {
	"sys: fp:*" =>
		sys->print(" %s", e[0:9]);
	}
	n := 0;
	{
		y := one;
		for(x := three; n < 10; n++){
			x -= one;
			y /= x;
		}
		sys->print(" %g\n", y);
	} exception e {
	"sys: fp:*" =>
		sys->print(" after %d\n", n);
	}
}

init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH;
	math = load Math Math->PATH;
	sys->print("%x\n", math->FPcontrol(0, ALL));
	sys->print("%x %x\n", math->getFPcontrol(), math->getFPstatus() & ~Math->INEX);
	for(i := 0; i < 4; i++){
		sys->print("old %x\n", math->FPcontrol(i<<8, Math->RND_MASK));
		sys->print("new %x\n", math->getFPcontrol());
		st();
		operations(big 9007199254740993);
	}
	math->FPcontrol(0, Math->RND_MASK|ALL);
	sys->sleep(0);
	c := chan of int;
	d := chan of int;
	spawn child(c, Math->RND_PINF);
	spawn child(d, Math->RND_NINF);
	for(i = 0; i < 3; i++){
		c <-= i;
		d <-= i;
		sys->print("parent %x %s\n", math->getFPcontrol(), div(-one, three));
		<-c;
		<-d;
	}
	trapped(Math->OVFL);
	trapped(Math->ZDIV|Math->OVFL);
	trapped(Math->INVAL|Math->OVFL);
	trapped(Math->UNFL|Math->OVFL);
	trapped(Math->INEX|Math->INVAL);
	trapped(Math->INVAL|Math->ZDIV|Math->OVFL|Math->UNFL);
	math->FPcontrol(0, ALL);
	sys->print("end %s %x\n", div(one, zero), math->getFPcontrol());
}

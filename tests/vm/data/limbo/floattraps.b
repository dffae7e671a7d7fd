implement Floattraps;

# One operation on many pairs of reals: the results, and whether something was raised. Nobody asks for the status.

include "math.m";
	math: Math;

Floattraps: module
{
	many: fn(control: int, op: int, x: array of real, y: array of real): (array of real, array of int);
	sum: fn(control: int, n: int): real;
	sums: fn(n: int): list of real;
};

ALL: con Math->INVAL|Math->ZDIV|Math->OVFL|Math->UNFL|Math->INEX;
Cent: type fixed(0.01, 10000.0);

many(control: int, op: int, x: array of real, y: array of real): (array of real, array of int)
{
	math = load Math Math->PATH;
	n := len x;
	r := array[n] of {* => 0.0};
	s := array[n] of {* => -1};
	math->FPcontrol(control, Math->RND_MASK|ALL);
	for(i := 0; i < n; i++){
		;
		{
			r[i] = apply(op, x[i], y[i]);
			s[i] = 0;
		} exception {
		"sys: fp:*" =>
			;
		}
	}
	return (r, s);
}

apply(op: int, x, y: real): real
{
	case op {
	0 =>	return x + y;
	1 =>	return x - y;
	2 =>	return x * y;
	3 =>	return x / y;
	4 =>	if(x < y) return 1.0;
	5 =>	if(x == y) return 1.0;
	6 =>	return real int x;
	7 =>	return real big x;
	8 =>	return real (big x * big y);
	9 =>	return x ** int y;
	10 =>	return real (Cent x);
	11 =>	return -x;
	12 =>	return real string x;
	13 =>	x += y; x *= y; x -= y; x /= y; return x;
	14 =>	if(x >= y) return x; if(x != y) return y;
	15 =>	return math->sqrt(x);
	16 =>	return math->rint(x);
	17 =>	return math->fdim(x, y);
	18 =>	return math->scalbn(x, int y);
	}
	return 0.0;
}

series(n: int): real
{
	s := 0.0;
	for(i := 1; i <= n; i++)
		s += 1.0/real i;
	return s;
}

# The word changes before and after a loop that is compiled.

sum(control: int, n: int): real
{
	math = load Math Math->PATH;
	old := math->FPcontrol(control, Math->RND_MASK|ALL);
	s := series(n);
	math->FPcontrol(old, Math->RND_MASK|ALL);
	return s;
}

child(control: int, n: int, c: chan of real)
{
	math->FPcontrol(control, Math->RND_MASK|ALL);
	s := 0.0;
	for(k := 1; k <= n; k++){
		s += 1.0/real k;
		if(k % 100 == 0)
			alt {
			c <-= s =>
				;
			* =>
				;
			}
	}
	c <-= s;
	c <-= -1.0;
}

# Four processes take turns, each with a word of its own.

sums(n: int): list of real
{
	math = load Math Math->PATH;
	math->FPcontrol(0, Math->RND_MASK|ALL);
	l: list of real;
	c := array[4] of {* => chan of real};
	for(i := 0; i < 4; i++)
		spawn child(i<<8, n, c[i]);
	for(i = 0; i < 4; i++){
		last := 0.0;
		while((s := <-c[i]) >= 0.0)
			last = s;
		l = last :: l;
	}
	return series(n) :: l;
}

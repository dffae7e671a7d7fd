implement Other;
include "other.m";
pad: array of (int, string, real);
ask(c: chan of int, n: int): int
{
	if(n % 7 == 3) raise "other:" + string n;
	if(n % 5 == 0) return <-c + n;
	return n * 2;
}
deep(f: ref fn(n: int): int, n: int): int { a := array[n % 4 + 1] of { * => (n, "p", 0.5) }; pad = a; return f(n) + len pad; }

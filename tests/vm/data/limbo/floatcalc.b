implement Calc;
Calc: module { third: fn(x, y: real): real; loop: fn(n: int): real; guarded: fn(x, y: real): string; run: fn(c: chan of real, n: int); };
third(x, y: real): real { return x/y; }
loop(n: int): real { s := 0.0; for(i := 1; i <= n; i++) s += 1.0/real i; return s; }
guarded(x, y: real): string
{
	{ z := x/y; return string z; } exception e { "sys: fp:*" => return "caught " + e[0:8]; }
}
run(c: chan of real, n: int) { c <-= loop(n); }

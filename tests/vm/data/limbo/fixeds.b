implement Fixa;
include "sys.m"; sys: Sys; print: import sys;
include "draw.m";
Fixa: module { init: fn(nil: ref Draw->Context, argv: list of string); };
T1: type fixed(0.1);
T2: type fixed(1.0/3.0, 1000.0);
T3: type fixed(2.0**-16, 2.0**14);
T4: type fixed(7.0);
T5: type fixed(0.001, 100.0);
T6: type fixed(2.0**-30);
T7: type fixed(1.0/60.0, 24.0*60.0);
T8: type fixed(3.0e6);
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH;
	rs := array[] of {0.0, 1.0, -1.0, 0.05, -0.05, 0.15, 2.5, -2.5, 10.24, -99.99, 3.14159, 31.25};
	for(i := 0; i < len rs; i++){
		r := rs[i];
		a := T1 r; b := T2 r; c := T3 r; e := T5 r; g := T7 r;
		print("%g: %g %g %g %g %g | ", r, real a, real b, real c, real e, real g);
		print("%d %d %d %d | ", int a, int b, int c, int e);
		print("%bd %s\n", big b, string a);
		print("  %g %g %g", real (a*a), real (b+b), real (c-T3 1.5));
		if(b != T2 0.0) print(" %g %g", real (T2 5.0 / b), real (b / T2 3.0));
		d := T3 a; f := T1 c; h := T2 g; k := T5 b;
		print(" %g %g %g %g\n", real d, real f, real h, real k);
		m := T1 int a; n := T4 real (T1 7.5 * a); print("  %g %g %d\n", real m, real n, a < T1 2.0);
	}
	s6 := T6 0.5; t6 := T6 0.25; print("%g %g %g\n", real (s6*t6), real (t6/s6), real (s6+t6));
	s8 := T8 9.0e6; print("%g %d\n", real (s8 / T8 3.0e6), int s8);
	t4 := T4 70; print("%g %d %g\n", real t4, int t4, real (t4 * T4 14));
	x := T1 "12.34"; print("%g %s\n", real x, string x);
	l := T1 1.0 :: T1 2.0 :: nil; sum := T1 0; for(; l != nil; l = tl l) sum += hd l; print("%g\n", real sum);
	arr := array[4] of {* => T3 1.25}; arr[2] *= T3 2.0; arr[3] /= T3 4.0; arr[1] -= T3 0.5; for(i = 0; i < 4; i++) print("%g ", real arr[i]); print("\n");
	c := chan[1] of T2; c <-= T2 4.0; print("%g\n", real <-c);
	print("%g\n", real -arr[0]); 
}

implement Fixs;
include "sys.m"; sys: Sys;
include "draw.m";
include "math.m"; math: Math;
Fixs: module { init: fn(nil: ref Draw->Context, argv: list of string); };
Fx: type fixed(1.0/256.0, 2000.0);
Dec: type fixed(0.01, 10000.0);
Sm: type fixed(0.001);
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH; math = load Math Math->PATH;
	a := Fx(3.25); b := Fx(-1.5); c := Dec(19.99); d := Dec(0.07);
	sys->print("%g %g %g %g\n", real(a+b), real(a-b), real(a*b), real(a/b));
	sys->print("%g %g %g %g\n", real(c+d), real(c-d), real(c*d), real(c/d));
	sys->print("%g %g\n", real Fx(c), real Dec(a));
	sys->print("%d %d %d\n", int a, int b, int c);
	t := Dec(0.0); for(i := 0; i < 100; i++) t += Dec(0.1); sys->print("%g %d\n", real t, t == Dec(10.0));
	for(x := Fx(-2.0); x < Fx(2.0); x += Fx(0.75)) sys->print("%g ", real x);
	sys->print("\n%d %d %d\n", a > b, a == Fx(3.25), -a < b);
	m := Fx(7) * Fx(3) / Fx(2); sys->print("%g %g\n", real m, real -m);
	s := Sm(0.125); sys->print("%g %g\n", real(s*Sm(0.5)), real(s+s));
	# conversions
	rs := array[] of {0.0, 0.5, 1.5, 2.5, -0.5, -1.5, 1e9, 2147483647.4, -2147483648.0, 1e-300, 123456789.987654321};
	for(i = 0; i < len rs; i++) sys->print("%d %bd %g %.3g %.17g %e|", int rs[i], big rs[i], rs[i], rs[i], rs[i], rs[i]);
	sys->print("\n");
	bs := array[] of {big 0, big -1, big 1 << 62, -(big 1 << 63), big 16r7fffffffffffffff, big 12345678901};
	for(i = 0; i < len bs; i++) sys->print("%d %g %bd %bx %bo %s %bd %bd|", int bs[i], real bs[i], bs[i], bs[i], bs[i], string bs[i], bs[i] >> 3, bs[i] * big 3);
	sys->print("\n");
	sys->print("%d %d %d %d\n", 7/2, -7/2, 7%3, -7%3);
	sys->print("%bd %bd %bd\n", big -7/big 2, big -7%big 3, (big 1<<40)/big -3);
	sys->print("%d %d %d %d %d\n", 1<<31, (1<<31)>>31, -1>>1, 16r7fffffff+1, 1<<33);
	sys->print("%d %d %d\n", int byte -1, int (byte 200 + byte 100), int (byte 5 - byte 6));
	sys->print("%d %d %d %d\n", 2**10, -3**3, 2**31, 10**9*10);
	sys->print("%bd %g %g\n", big 3**30, 2.0**-3, 1.5**4);
	e := 1.0; k := 0; while(1.0 + e != 1.0) { e /= 2.0; k++; } sys->print("%d %g\n", k, e);
	h := 0.0; for(i = 1; i <= 1000; i++) h += 1.0/real i; sys->print("%g %.17g\n", h, h);
	p := 0.0; for(i = 0; i < 50; i++) p += math->sin(real i) * math->exp(-real i/10.0); sys->print("%g\n", p);
	sys->print("%g %g %g %g\n", math->Pi, math->sqrt(2.0), math->pow(2.0, 0.5), math->atan2(-1.0, -2.0));
	case big 5 { big 1 or big 4 => sys->print("low\n"); big 5 => sys->print("five\n"); * => sys->print("?\n"); }
	case bs[3] { big 0 => sys->print("0\n"); big 16r7fffffffffffffff => sys->print("max\n"); * => sys->print("other\n"); }
	for(i = -3; i < 12; i++) { case i { -3 or -1 => sys->print("A"); 0 to 3 => sys->print("B"); 5 => sys->print("C"); 7 to 9 => sys->print("D"); * => sys->print("."); } } sys->print("\n");
	ii := 1<<31; { sys->print("%d\n", ii / (i - 12)); } exception ex { "*" => sys->print("%s\n", ex); }
	{ sys->print("%bd\n", bs[0] % big (i - 12)); } exception ex { "*" => sys->print("%s\n", ex); }
}

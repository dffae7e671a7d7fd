implement Reals2;
include "sys.m"; sys: Sys; print, sprint: import sys;
include "draw.m";
include "math.m"; math: Math;
Reals2: module { init: fn(nil: ref Draw->Context, argv: list of string); };
# reals to ints and back, strings to numbers
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH; math = load Math Math->PATH; math->FPcontrol(0, Math->INVAL|Math->ZDIV|Math->OVFL|Math->UNFL|Math->INEX);
	rs := array[] of {0.0, -0.0, 0.4, 0.5, 0.6, -0.4, -0.5, -0.6, 1.5, 2.5, -1.5, -2.5, 2147483646.4, 2147483646.5, 2147483647.0, 2147483647.4, 2147483647.6, 2147483648.0, -2147483648.0, -2147483648.4, -2147483648.6, -2147483649.0, 1e10, -1e10, 9.2e18, 9.3e18, -9.2e18, -9.3e18, 1e300, -1e300, 4503599627370495.5, 4503599627370497.5, 9007199254740993.0, 0.49999999999999994, -0.49999999999999994};
	for(i := 0; i < len rs; i++) { r := rs[i]; print("%g: %d %bd %d %g\n", r, int r, big r, int byte int r, real int r); }
	ss := array[] of {"", " ", "0", "-0", "+5", "--5", "+-5", " \t\n12", "12 ", "1 2", "0x1f", "0X1F", "017", "1e3", "1.5e3x", "1e", "1e+", "1e-", "e5", ".", "-.", ".5", "5.", "-.5.5", "1.e2", "inf", "Inf", "Infinity", "-Infinity", "nan", "NaN", "NaNx", "infinit", "1e400", "-1e400", "1e-400", "4.9e-324", "2.4e-324", "2.5e-324", "1.7976931348623157e308", "1.7976931348623159e308", "9007199254740993", "0.1", "123456789012345678901234567890", "2147483647", "2147483648", "-2147483648", "-2147483649", "4294967296", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "18446744073709551616", "36rzz", "16rff", "2r101", "1_000", "１２", "٣", "\u00a05", "1\u0000" + "2", "0.000000000000000000000000000000000000000000000000001", "1E5", "1D5", "0b11", "1e5e5", "+.5e+2", "0e0", "00012", "1e0005", "1e99999999999", "0.1e1000000000000"};
	for(i = 0; i < len ss; i++) { s := ss[i]; print("%q: %d %bd %g %s\n", s, int s, big s, real s, string real s); }
	xs := array[] of {1e21, 1e22, 1e23, 123456789.123456789, 1.0/3.0, 2.0/3.0, 1e-7, 1.5e-7, 100.0, 1e5, 1e6, 123456.0, 1234567.0, 12345678.9, 0.001, 0.0001, 0.00001, 1.7976931348623157e308, -1.0, 1e15, 1e16, 1e17, 1e18, 99999999999999999.0, 0.1, 0.2, 0.1+0.2, 4.35, 0.000123, 1e2, 33333.333333333336};
	for(i = 0; i < len xs; i++) print("%s %g %s|", string xs[i], xs[i], string (real string xs[i] == xs[i])); print("\n");
	z := 0.0; inf := 1e308 * 10.0; 
	print("%s\n", string (z*-1.0)); print("%d %d %d\n", int '\u00e9', int "é"[0], '日');
	for(b := big 1; b > big 0; b *= big 10) print("%s %s %g %d\n", string b, string -b, real b, int b);
	print("%s %s\n", string byte 255, string (byte 7 + byte 250)); print("%d\n", int (real (1<<30) * 2.0 - 1.0)); print("%bd\n", big real (big 1 << 53));
}

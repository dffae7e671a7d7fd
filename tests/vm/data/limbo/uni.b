implement Uni;
include "sys.m"; sys: Sys;
include "draw.m";
Uni: module { init: fn(nil: ref Draw->Context, argv: list of string); };
rev(s: string): string { r := ""; for(i := len s - 1; i >= 0; i--) r[len r] = s[i]; return r; }
hex(s: string): string { r := ""; for(i := 0; i < len s; i++) r += sys->sprint("%x ", s[i]); return r; }
bytes(a: array of byte): string { r := ""; for(i := 0; i < len a; i++) r += sys->sprint("%.2x", int a[i]); return r; }
cnt(s: string): list of (int, int)
{
	l: list of (int, int);
out:
	for(i := 0; i < len s; i++) {
		n: list of (int, int); found := 0;
		for(m := l; m != nil; m = tl m) { (c, k) := hd m; if(c == s[i]) { k++; found = 1; } n = (c, k) :: n; }
		if(!found) n = (s[i], 1) :: n;
		l = n;
		if(len l > 6) break out;
	}
	return l;
}
kind(s: string): string
{
	case s {
	"" => return "empty";
	"a" to "f" => return "a-f";
	"straße" or "Straße" => return "street";
	"日" to "本" => return "cjk";
	"zz" => return "zz";
	* => return "other";
	}
}
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH;
	t := array[] of {"", "abc", "naïve", "日本語テキスト", "mixed ascii und Ümläute", "😀🎉x", "\u0000z", "ﬁ\ufeff"};
	for(i := 0; i < len t; i++) {
		s := t[i];
		a := array of byte s;
		sys->print("%d %d %s|%s|%s|%s\n", len s, len a, s, rev(s), hex(s), bytes(a));
		for(j := 0; j <= len s; j += 2) sys->print("[%s|%s]", s[0:j], s[j:]);
		sys->print("\n%d %s\n", s == string a, string a[0:(len a)/2]);
		for(l := cnt(s); l != nil; l = tl l) { (c, k) := hd l; sys->print("%c%d ", c, k); }
		sys->print("\n");
	}
	for(i = 0; i < len t; i++) for(j := 0; j < len t; j++) sys->print("%d%d%d ", t[i] < t[j], t[i] == t[j], t[i] >= t[j]);
	sys->print("\n");
	ks := array[] of {"", "a", "c", "cat", "f", "fa", "g", "straße", "日", "月", "本", "本x", "zz", "zzz"};
	for(i = 0; i < len ks; i++) sys->print("%s=%s ", ks[i], kind(ks[i]));
	sys->print("\n");
	s := "hello";
	s[1] = 'é'; s[5] = '!'; sys->print("%s\n", s);
	{ s[9] = 'x'; } exception e { "*" => sys->print("%s\n", e); }
	{ sys->print("%c\n", s[17]); } exception e { "*" => sys->print("%s\n", e); }
	{ sys->print("%s\n", s[3:2]); } exception e { "*" => sys->print("%s\n", e); }
	{ sys->print("%s\n", s[-1:2]); } exception e { "*" => sys->print("%s\n", e); }
	ns: string;
	{ sys->print("<%s> %d\n", ns[0:0], len ns); ns[0] = 'n'; sys->print("%s\n", ns); sys->print("%s\n", ns[0:2]); } exception e { "*" => sys->print("%s\n", e); }
	bad := array[] of {byte 255, byte 'a', byte 195, byte 169, byte 226, byte 130};
	sys->print("%s %s\n", string bad, hex(string bad));
	x := "ab"; y := x; x += "c"; x[0] = 'Z'; sys->print("%s %s\n", x, y);
	for(i = 0; i < 12; i++) x += x[len x - 1:] + y; sys->print("%s %d\n", x, len x);
	z1 := x[0:0] + "  42xyz"; z2 := x[0:0] + "1.5e3x"; sys->print("%d %d %bd %g\n", int z1, int z2, big z1, real z2);
	sys->print("%s %s %s %s\n", string 3, string big 7, string 1.25, string byte 250);
	(n, toks) := sys->tokenize("  a,b;;c d, ", " ,;");
	sys->print("%d:", n); for(; toks != nil; toks = tl toks) sys->print("<%s>", hd toks); sys->print("\n");
	sys->print("%5s|%-5s|%.2s|%q|%q|%5d|%-5d|%05d|%x|%X|%o|%c|%%|%g|%e|%.3f|%10.2f|\n", "é", "ü", "日本語", "a b", "it's", 42, 42, 42, 255, 255, 8, 9786, 0.1, 12345.678, 2.0/3.0, -1.5);
}

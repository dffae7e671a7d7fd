implement Lists3;
include "sys.m"; sys: Sys;
include "draw.m";
Lists3: module { init: fn(nil: ref Draw->Context, argv: list of string); };
T: adt { k: int; v: string; l, r: cyclic ref T; };
ins(t: ref T, k: int, v: string): ref T { if(t == nil) return ref T(k, v, nil, nil); if(k < t.k) t.l = ins(t.l, k, v); else if(k > t.k) t.r = ins(t.r, k, v); else t.v = v; return t; }
walk(t: ref T, l: list of (int, string)): list of (int, string) { if(t == nil) return l; return walk(t.l, (t.k, t.v) :: walk(t.r, l)); }
del(t: ref T, k: int): ref T { if(t == nil) return nil; if(k < t.k) { t.l = del(t.l, k); return t; } if(k > t.k) { t.r = del(t.r, k); return t; } if(t.l == nil) return t.r; if(t.r == nil) return t.l; m := t.r; while(m.l != nil) m = m.l; t.r = del(t.r, m.k); t.k = m.k; t.v = m.v; return t; }
msort(l: list of string): list of string { if(l == nil || tl l == nil) return l; a, b: list of string; for(; l != nil; l = tl l) { a = hd l :: a; (a, b) = (b, a); } a = msort(a); b = msort(b); r: list of string; while(a != nil || b != nil) if(b == nil || a != nil && hd a <= hd b) { r = hd a :: r; a = tl a; } else { r = hd b :: r; b = tl b; } o: list of string; for(; r != nil; r = tl r) o = hd r :: o; return o; }
perms(a: array of int, n: int, f: ref fn(a: array of int): int): int { if(n <= 1) return f(a); t := 0; for(i := 0; i < n; i++) { t += perms(a, n-1, f); j := 0; if(n % 2 == 0) j = i; (a[j], a[n-1]) = (a[n-1], a[j]); } return t; }
inv(a: array of int): int { n := 0; for(i := 0; i < len a; i++) for(j := i+1; j < len a; j++) n += a[i] > a[j]; return n; }
queens(n, row: int, cols, d1, d2: array of int): int { if(row == n) return 1; c := 0; for(i := 0; i < n; i++) { if(cols[i] || d1[row+i] || d2[row-i+n]) continue; cols[i] = d1[row+i] = d2[row-i+n] = 1; c += queens(n, row+1, cols, d1, d2); cols[i] = d1[row+i] = d2[row-i+n] = 0; } return c; }
Hash: adt { t: array of list of (string, int); get: fn(h: self ref Hash, k: string): int; put: fn(h: self ref Hash, k: string, v: int); };
hash(s: string, n: int): int { h := 5381; for(i := 0; i < len s; i++) h = h * 33 ^ s[i]; if(h < 0) h = -h; if(h < 0) h = 0; return h % n; }
Hash.get(h: self ref Hash, k: string): int { for(l := h.t[hash(k, len h.t)]; l != nil; l = tl l) if((hd l).t0 == k) return (hd l).t1; return 0; }
Hash.put(h: self ref Hash, k: string, v: int) { i := hash(k, len h.t); r: list of (string, int); for(l := h.t[i]; l != nil; l = tl l) if((hd l).t0 != k) r = hd l :: r; h.t[i] = (k, v) :: r; }
edit(a, b: string): int { d := array[len a + 1] of { * => array[len b + 1] of int }; for(i := 0; i <= len a; i++) for(j := 0; j <= len b; j++) { if(i == 0) d[i][j] = j; else if(j == 0) d[i][j] = i; else { m := d[i-1][j-1] + (a[i-1] != b[j-1]); if(d[i-1][j] + 1 < m) m = d[i-1][j] + 1; if(d[i][j-1] + 1 < m) m = d[i][j-1] + 1; d[i][j] = m; } } return d[len a][len b]; }
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH;
	t: ref T; for(i := 0; i < 40; i++) t = ins(t, i * 17 % 41, sys->sprint("v%d", i)); for(i = 0; i < 40; i += 3) t = del(t, i);
	for(l := walk(t, nil); l != nil; l = tl l) { (k, v) := hd l; sys->print("%d%s ", k, v); } sys->print("\n");
	w := "the" :: "quick" :: "brown" :: "fox" :: "jumps" :: "över" :: "the" :: "lazy" :: "dog" :: "" :: nil; for(s := msort(w); s != nil; s = tl s) sys->print("<%s>", hd s); sys->print("\n");
	sys->print("%d %d\n", perms(array[] of {1, 2, 3, 4, 5}, 5, inv), queens(7, 0, array[7] of {* => 0}, array[15] of {* => 0}, array[15] of {* => 0}));
	h := ref Hash(array[7] of list of (string, int)); for(s = w; s != nil; s = tl s) h.put(hd s, h.get(hd s) + 1); sys->print("%d %d %d %d\n", h.get("the"), h.get("fox"), h.get("none"), h.get(""));
	sys->print("%d %d %d\n", edit("kitten", "sitting"), edit("", "äö"), edit("日本語", "日本"));
	cyc := ref T(1, "c", nil, nil); cyc.l = cyc; cyc.r = ref T(2, "d", cyc, nil); cyc = nil;
	a := array[100] of { 0 to 9 => 1, 50 to 59 => 2, 99 => 3, * => 0 }; n := 0; for(i = 0; i < 100; i++) n += a[i]; sys->print("%d\n", n);
	{ x := array[3] of list of int; sys->print("%d\n", hd x[1]); } exception e { "*" => sys->print("%s\n", e); }
	{ y := array[3] of ref T; y[2].k = 5; } exception e { "*" => sys->print("%s\n", e); }
	{ z := array[3] of array of int; z[1][0] = 5; } exception e { "*" => sys->print("%s\n", e); }
	{ z := a[60:]; z[40] = 1; } exception e { "*" => sys->print("%s\n", e); }
	{ z := a[60:10]; z = nil; } exception e { "*" => sys->print("%s\n", e); }
	{ z := a[:101]; z = nil; } exception e { "*" => sys->print("%s\n", e); }
	{ q: list of string; q = tl q; } exception e { "*" => sys->print("%s\n", e); }
	{ f: ref T; g := *f; g.k = 1; } exception e { "*" => sys->print("%s\n", e); }
	{ bigarr := array[1<<28] of int; bigarr[0] = 1; } exception e { "*" => sys->print("%s\n", e); }
	{ raise "user:" + string len a; } exception e { "user:*" => sys->print("%s\n", e); }
}

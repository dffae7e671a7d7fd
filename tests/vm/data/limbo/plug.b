implement Plug;
include "sys.m"; sys: Sys;
include "mods2.m";
hidden := 5;
init(n: int): string { sys = load Sys Sys->PATH; count = n; name = sys->sprint("plug%d", n); tab = array[3] of {* => n}; return name; }
next(): int { hidden++; count += 10; tab[0] = hidden; return hidden; }
apply(f: ref fn(x: int): int, n: int): list of int { l: list of int; for(i := 0; i < n; i++) l = f(i) :: l; return l; }
fail(k: int) raises E { if(k > 2) raise E(k); if(k == 2) raise "fail:two"; if(k == 1) { a: array of int; a[0] = 1; } }
T.mk(s: string): ref T { if(len s > 3) return ref T.Two(len s, s, s :: "x" :: nil); return ref T.One(1, s, 99); }
T.show(t: self ref T): string { pick x := t { One => return "one" + string x.a; Two => return "two" + hd tl x.b; } return "?"; }
ch(): chan of ref T { c := chan[2] of ref T; c <-= T.mk("ab"); c <-= T.mk("abcdef"); return c; }

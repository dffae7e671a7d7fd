implement Algos;
include "sys.m"; sys: Sys; print, sprint: import sys;
include "draw.m";
Algos: module { init: fn(nil: ref Draw->Context, argv: list of string); };
# heap, dijkstra, huffman, lzw, sudoku, matrix determinant, bigfloats of e, gcd tables
E: adt { dst, w: int; };
PQ: adt { a: array of (int, int); n: int; push: fn(q: self ref PQ, k, v: int); pop: fn(q: self ref PQ): (int, int); };
PQ.push(q: self ref PQ, k, v: int) { if(q.n == len q.a) { b := array[2 * q.n + 1] of (int, int); b[0:] = q.a; q.a = b; } i := q.n++; q.a[i] = (k, v); while(i > 0 && q.a[(i-1)/2].t0 > q.a[i].t0) { (q.a[i], q.a[(i-1)/2]) = (q.a[(i-1)/2], q.a[i]); i = (i-1)/2; } }
PQ.pop(q: self ref PQ): (int, int) { r := q.a[0]; q.a[0] = q.a[--q.n]; i := 0; for(;;) { c := 2*i + 1; if(c >= q.n) break; if(c + 1 < q.n && q.a[c+1].t0 < q.a[c].t0) c++; if(q.a[i].t0 <= q.a[c].t0) break; (q.a[i], q.a[c]) = (q.a[c], q.a[i]); i = c; } return r; }
dij(g: array of list of E, s: int): array of int { d := array[len g] of {* => 1000000}; d[s] = 0; q := ref PQ(nil, 0); q.push(0, s); while(q.n > 0) { (k, u) := q.pop(); if(k > d[u]) continue; for(l := g[u]; l != nil; l = tl l) { e := hd l; if(k + e.w < d[e.dst]) { d[e.dst] = k + e.w; q.push(d[e.dst], e.dst); } } } return d; }
H: adt { w: int; pick { Leaf => c: int; Node => l, r: cyclic ref H; } };
codes(h: ref H, p: string, out: array of string) { pick x := h { Leaf => out[x.c] = p; Node => codes(x.l, p + "0", out); codes(x.r, p + "1", out); } }
huff(s: string): string { f := array[128] of {* => 0}; for(i := 0; i < len s; i++) f[s[i]]++; l: list of ref H; for(i = 127; i >= 0; i--) if(f[i]) l = ref H.Leaf(f[i], i) :: l; while(tl l != nil) { (a, r1) := least(l); (b, r2) := least(r1); n := ref H.Node(a.w + b.w, a, b); l = n :: r2; } o := array[128] of string; codes(hd l, "", o); r := ""; for(i = 0; i < len s; i++) r += o[s[i]]; return r; }
least(l: list of ref H): (ref H, list of ref H) { m := hd l; for(k := tl l; k != nil; k = tl k) if((hd k).w < m.w) m = hd k; r: list of ref H; for(; l != nil; l = tl l) if(hd l != m) r = hd l :: r; return (m, r); }
lzw(s: string): list of int { d := array[0] of string; out: list of int; w := ""; for(i := 0; i < len s; i++) { x := w + s[i:i+1]; if(find(d, x) >= 0) w = x; else { out = find(d, w) :: out; b := array[len d + 1] of string; b[0:] = d; b[len d] = x; d = b; w = s[i:i+1]; } } if(w != "") out = find(d, w) :: out; r: list of int; for(; out != nil; out = tl out) r = hd out :: r; return r; }
find(d: array of string, x: string): int { if(len x == 1) return x[0]; for(i := 0; i < len d; i++) if(d[i] == x) return 256 + i; return -1; }
sud(b: array of array of int): int { for(i := 0; i < 9; i++) for(j := 0; j < 9; j++) if(b[i][j] == 0) { for(v := 1; v <= 9; v++) if(okk(b, i, j, v)) { b[i][j] = v; if(sud(b)) return 1; b[i][j] = 0; } return 0; } return 1; }
okk(b: array of array of int, i, j, v: int): int { for(k := 0; k < 9; k++) if(b[i][k] == v || b[k][j] == v || b[i/3*3 + k/3][j/3*3 + k%3] == v) return 0; return 1; }
det(m: array of array of real): real { n := len m; d := 1.0; for(i := 0; i < n; i++) { p := i; for(j := i + 1; j < n; j++) if(ab(m[j][i]) > ab(m[p][i])) p = j; if(m[p][i] == 0.0) return 0.0; if(p != i) { (m[p], m[i]) = (m[i], m[p]); d = -d; } d *= m[i][i]; for(j = i + 1; j < n; j++) { f := m[j][i] / m[i][i]; for(k := i; k < n; k++) m[j][k] -= f * m[i][k]; } } return d; }
ab(x: real): real { if(x < 0.0) return -x; return x; }
edigits(n: int): string { a := array[n + 2] of {* => 1}; s := "2."; for(i := 0; i < n; i++) { q := 0; for(j := n + 1; j >= 1; j--) { a[j] = a[j] * 10 + q; q = a[j] / (j + 1); a[j] %= j + 1; } s[len s] = '0' + q; } return s; }
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH; g := array[20] of list of E; for(i := 0; i < 20; i++) for(j := 1; j < 4; j++) g[i] = E((i * j + 7) % 20, (i * 13 + j * 5) % 11 + 1) :: g[i]; d := dij(g, 0); for(i = 0; i < 20; i++) print("%d ", d[i]); print("\n%s\n", huff("abracadabra alakazam")); for(l := lzw("TOBEORNOTTOBEORTOBEORNOT"); l != nil; l = tl l) print("%d ", hd l); print("\n"); p := "530070000600195000098000060800060003400803001700020006060000280000419005000080079"; b := array[9] of array of int; for(i = 0; i < 9; i++) { b[i] = array[9] of int; for(j = 0; j < 9; j++) b[i][j] = p[i*9+j] - '0'; } print("%d ", sud(b)); for(i = 0; i < 9; i++) for(j = 0; j < 9; j++) print("%d", b[i][j]); print("\n"); m := array[4] of array of real; for(i = 0; i < 4; i++) { m[i] = array[4] of real; for(j = 0; j < 4; j++) m[i][j] = real ((i * 7 + j * 3) % 5) + 0.5; } print("%g\n%s\n", det(m), edigits(40));
}

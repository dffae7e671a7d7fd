implement Labels;
include "sys.m"; sys: Sys; print, sprint: import sys;
include "draw.m";
Labels: module { init: fn(nil: ref Draw->Context, argv: list of string); };
# case on strings and bigs with many labels; nested case; goto tables in loops; labelled continue
tok(s: string): int { case s { "if" or "while" or "for" or "do" => return 1; "int" or "real" or "string" or "byte" or "big" => return 2; "" => return 0; "ca" to "c~" => return 3; "日本" => return 4; "zz" => return 5; "A" to "Z" => return 6; } return -1; }
bg(b: big): string { case b { big 0 or big -5 or big 1 => return "small"; big 4294967296 or big 4294967297 => return "2^32"; big 16r7fffffffffffffff => return "max"; * => return "other"; } }
mach(s: string): string { st := 0; r := ""; out: for(i := 0; i < len s; i++) { c := s[i]; case st { 0 => case c { 'a' to 'z' => st = 1; r += "<"; '0' to '9' => st = 2; r += "["; ' ' => continue out; '!' => break out; * => r += "?"; } 1 => case c { 'a' to 'z' or '0' to '9' => ; * => st = 0; r += ">"; i--; continue out; } 2 => case c { '0' to '9' => ; '.' => st = 3; * => st = 0; r += "]"; i--; continue out; } 3 => case c { '0' to '9' => ; * => st = 0; r += "]f"; i--; continue out; } } r[len r] = c; } return r + sprint("|%d", st); }
nest(n: int): int { t := 0; a: for(i := 0; i < n; i++) { b: for(j := 0; j < n; j++) { for(k := 0; k < n; k++) { if((i + j + k) % 7 == 3) continue a; if((i * j * k) % 5 == 4) continue b; if(i + j + k > 3 * n - 4) break a; t += i * 100 + j * 10 + k; } t++; } t += 1000; } return t; }
dow(n: int): int { t := 0; i := 0; do { i++; if(i % 3 == 0) continue; if(i > n) break; t = t * 2 + i; } while(i < 20); while(t > 1000) { t /= 3; if(t % 2) t++; } return t; }
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH; for(l := "if" :: "do" :: "string" :: "" :: "a" :: "b" :: "c" :: "c~" :: "d" :: "日本" :: "日" :: "zz" :: "Q" :: "Z" :: "Za" :: "big" :: "bi" :: "while" :: "~" :: nil; l != nil; l = tl l) print("%d ", tok(hd l)); print("\n"); for(i := 0; i < 64; i += 3) print("%s,%s ", bg(big 1 << i), bg(-(big 1 << i))); print("%s %s %s %s\n", bg(big 0), bg(big -5), bg(big 4294967297), bg(big 16r7fffffffffffffff)); print("%s\n%s\n", mach("abc 12 3.5x y9 @ !never"), mach("a1b2 77")); for(i = 0; i < 9; i++) print("%d %d; ", nest(i), dow(i)); print("\n");
}

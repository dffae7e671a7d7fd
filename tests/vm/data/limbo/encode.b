implement Encode;
include "sys.m"; sys: Sys; print, sprint: import sys;
include "draw.m";
Encode: module { init: fn(nil: ref Draw->Context, argv: list of string); };
# tokenize, utf functions, aprint on edges
tk(s, d: string) { (n, l) := sys->tokenize(s, d); print("%d:", n); for(; l != nil; l = tl l) print("<%s>", hd l); print(" "); }
bc(b: array of byte, n: int) { { (r, w, s) := sys->byte2char(b, n); print("%x,%d,%d ", r, w, s); } exception e { "*" => print("(%s) ", e); } }
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH; tk("a b c", " "); tk("  a  b  ", " "); tk("", " "); tk("abc", ""); tk(nil, nil); tk("a,b;c", ";,"); tk("日本 語", " "); tk("日本語", "本"); tk("aXbYc", "YX"); tk("\n\n", "\n"); tk("a\0b", "\0"); tk("xxx", "x"); print("\n"); b := array[] of {byte 'a', byte 16rc3, byte 16ra9, byte 16re6, byte 16r97, byte 16ra5, byte 16rf0, byte 16r9f, byte 16r98, byte 16r80, byte 16rff, byte 16rc3, byte 16re6, byte 16r97}; for(i := -1; i < 16; i++) bc(b, i); bc(nil, 0); bc(b[0:0], 0); print("\n"); for(i = 0; i < 15; i++) { { print("%d ", sys->utfbytes(b, i)); } exception e { "*" => print("(%s) ", e); } } print("\n"); c := array[6] of {* => byte 1}; rs := array[] of {'a', 16r7f, 16r80, 16r7ff, 16r800, 16rffff, 16r10000, 16r10ffff, 16r110000, -1, 16rd800, 0}; for(i = 0; i < len rs; i++) { { n := sys->char2byte(rs[i], c, 1); print("%x:%d ", rs[i], n); for(j := 0; j < 6; j++) print("%.2x", int c[j]); print(" "); } exception e { "*" => print("(%s) ", e); } for(j := 0; j < 6; j++) c[j] = byte 1; } for(i = 2; i < 8; i++) { { print("%d ", sys->char2byte('日', c, i)); } exception e { "*" => print("(%s) ", e); } } print("\n"); a := sys->aprint("%s|%d", "é日", 5); print("%d %s %d\n", len a, string a, len sys->aprint("%s", "")); s := "a\u00e9\u65e5😀"; print("%d %d %d\n", len s, len array of byte s, sys->utfbytes(array of byte s, 6)); print("%d %d\n", sys->print("é\n"), sys->fprint(sys->fildes(1), "日%d\n", 1));
}

implement Keynums;
include "sys.m"; sys: Sys; print: import sys;
include "draw.m";
include "keyring.m"; kr: Keyring; IPint: import kr;
Keynums: module { init: fn(nil: ref Draw->Context, argv: list of string); };
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH; kr = load Keyring Keyring->PATH;
	ns := array[] of {"1", "2", "4294967296", "123456789012345678901234567890", "340282366920938463463374607431768211456"};
	for(i := 0; i < len ns; i++){ a := IPint.strtoip(ns[i], 10); print("%s %s %s %d %d:", a.iptostr(10), a.iptostr(16), a.iptob64(), a.bits(), a.iptoint());
		for(j := 0; j < len ns; j++){ b := IPint.strtoip(ns[j], 10); print(" %d/%d", a.cmp(b), a.eq(b)); } print("\n");
		for(j = 0; j < len ns; j++){ b := IPint.strtoip(ns[j], 10); print(" %s,%s,%s,%s,%s", a.add(b).iptostr(16), a.sub(b).iptostr(16), a.mul(b).iptostr(16), a.shl(j*5).iptostr(16), a.shr(j*7).iptostr(16)); if(ns[j] != "0"){ (q, r) := a.div(b); print(",%s,%s", q.iptostr(16), r.iptostr(16)); } } print("\n"); }
	for(k := "a" :: "ab" :: "abc" :: "abcd" :: "key56 key56 key56 key56 key56 key56 key56 key56 key56 key56 key56 key56" :: nil; k != nil; k = tl k){ st := kr->blowfishsetup(array of byte hd k, nil); b := array of byte "eight by16 bytes"; kr->blowfishcbc(st, b, 16, 0); for(i = 0; i < 16; i++) print("%.2x", int b[i]); st = kr->blowfishsetup(array of byte hd k, nil); kr->blowfishcbc(st, b[0:8], 8, 1); kr->blowfishcbc(st, b[8:], 8, 1); print(" %s\n", string b); }
	{ kr->blowfishsetup(array[0] of byte, nil); } exception e { "*" => print("%s\n", e); }
	{ kr->blowfishsetup(array of byte "abc", array[9] of byte); } exception e { "*" => print("%s\n", e); }
	{ st := kr->blowfishsetup(array of byte "abc", array[8] of {* => byte 0}); kr->blowfishcbc(st, array[9] of byte, 9, 0); } exception e { "*" => print("%s\n", e); }
	{ st := kr->dessetup(array of byte "abc", nil); } exception e { "*" => print("%s\n", e); }
	r := IPint.random(1, 64); print("%d\n", r.bits() <= 64);
}

implement Ipints;
include "sys.m"; sys: Sys;
include "draw.m";
include "ipints.m"; ip: IPints; IPint: import ip;
include "keyring.m"; kr: Keyring;
Ipints: module { init: fn(nil: ref Draw->Context, argv: list of string); };
ab(x: ref IPint): ref IPint { if(x.iptostr(16)[0] == 45) return x.neg(); return x; }
sg(n: int): int { if(n < 0) return -1; return n > 0; }
z(s: string): string { if(s == "-0") return "0"; return s; }
hex(a: array of byte): string { s := ""; for(i := 0; i < len a; i++) s += sys->sprint("%.2x", int a[i]); return s; }
show(n: string, x: ref IPint) { if(x == nil) { sys->print("%s nil\n", n); return; } sys->print("%s %s %s %s %s %s %d %d %s\n", n, x.iptostr(10), x.iptostr(16), x.iptob64(), x.iptob64z(), hex(x.iptobytes()), x.bits(), x.iptoint(), x.iptostr(32)); }
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH; ip = load IPints IPints->PATH; kr = load Keyring Keyring->PATH;
	t := array[] of {"0", "1", "-1", "255", "256", "-4294967296", "123456789012345678901234567890", "2147483647", "2147483648", "-2147483649", "340282366920938463463374607431768211455", "170141183460469231731687303715884105727"};
	a := array[len t] of ref IPint;
	for(i := 0; i < len t; i++) { a[i] = IPint.strtoip(t[i], 10); show(t[i], a[i]); }
	for(i = 0; i < len a; i++) for(j := 0; j < len a; j++) {
		x := a[i]; y := a[j];
		sys->print("%d %d: %s %s %s %d %d", i, j, z(x.add(y).iptostr(10)), z(x.sub(y).iptostr(16)), z(x.mul(y).iptostr(10)), x.eq(y), sg(x.cmp(y)));
		if(y.iptostr(10) != "0") { (q, r) := x.div(y); sys->print(" %s %s %s", z(q.iptostr(10)), z(r.iptostr(10)), z(ab(x).mod(y).iptostr(10))); }
		sys->print(" %s %s %s\n", z(x.and(y).iptostr(16)), z(x.ori(y).iptostr(16)), z(x.xor(y).iptostr(16)));
	}
	for(i = 0; i < len a; i++) { x := a[i]; sys->print("%s %s %s %s %s %s\n", z(x.neg().iptostr(10)), z(x.not().iptostr(16)), z(x.shl(5).iptostr(16)), z(x.shr(3).iptostr(16)), z(x.shl(64).iptostr(10)), z(x.shr(40).iptostr(10))); }
	s := array[] of {"ff", "FFzz", "", "zz", " 12", "--5", "1=", "0x10", "DEADBEEFdeadbeef00"};
	for(i = 0; i < len s; i++) { show("h" + s[i], IPint.strtoip(s[i], 16)); show("d" + s[i], IPint.strtoip(s[i], 10)); }
	b := array[] of {"AQ==", "AQID", "/////w==", "A", "!", "AAECAwQ="};
	for(i = 0; i < len b; i++) show("b" + b[i], IPint.b64toip(b[i]));
	e := IPint.inttoip(65537); m := a[11];
	sys->print("%s %s\n", a[6].expmod(e, m).iptostr(10), IPint.inttoip(3).expmod(IPint.inttoip(40), nil).iptostr(10));
	sys->print("%s\n", z(e.invert(m).iptostr(10)));
	sys->print("%d %d %d\n", ip->probably_prime(m, 10), ip->probably_prime(a[6], 10), ip->probably_prime(IPint.inttoip(2), 5));
	p := ip->genprime(64, 10); sys->print("%d %d\n", p.bits(), ip->probably_prime(p, 10));
	r := IPint.random(100); sys->print("%d\n", r.bits() <= 100);
	show("bytes", IPint.bytestoip(array[] of {byte 1, byte 2, byte 3})); show("be", IPint.bebytestoip(array[0] of byte));
	{ x: ref IPint; x.add(x); } exception ex { "*" => sys->print("%s\n", ex); }
	{ show("nil", IPint.bytestoip(nil)); } exception ex { "*" => sys->print("%s\n", ex); }
	x: ref IPint; sys->print("%d %d\n", x.bits(), x.iptoint()); 
	d := array[64] of byte; data := array of byte "The quick brown fox";
	kr->md4(data, len data, d, nil); sys->print("%s\n", hex(d[0:16]));
	st := kr->md4(data, 5, nil, nil); st = kr->md4(data[5:], len data - 5, d, st); sys->print("%s\n", hex(d[0:16]));
	kr->md5(data, len data, d, nil); sys->print("%s\n", hex(d[0:16])); kr->sha1(data, len data, d, nil); sys->print("%s\n", hex(d[0:20]));
	kr->hmac_sha1(data, len data, array of byte "key", d, nil); sys->print("%s\n", hex(d[0:20])); kr->hmac_md5(data, len data, array of byte "key", d, nil); sys->print("%s\n", hex(d[0:16]));
	kr->sha256(data, len data, d, nil); sys->print("%s\n", hex(d[0:32])); kr->sha512(data, len data, d, nil); sys->print("%s\n", hex(d));
}

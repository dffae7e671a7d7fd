implement Printed;
include "sys.m"; sys: Sys;
include "draw.m";
Printed: module { init: fn(nil: ref Draw->Context, argv: list of string); };
show(fd: ref Sys->FD, n: int) { b := array[300] of byte; k := sys->read(fd, b, len b); sys->print("%d %d <%s>\n", n, k, string b[0:k]); }
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH;
	p := array[2] of ref Sys->FD; sys->pipe(p);
	for(i := 0; i < 3; i++) show(p[0], sys->fprint(p[1], "%d %s|%6.2f|%bx|%c|%-4d.", i, "text", real i / 3.0, big i << 40, 'a' + i, i));
	show(p[0], sys->fprint(p[1], "äλ%c%s", 16r1F600, "日本\n"));
	show(p[0], sys->fprint(p[1], "%s %q", "plain", "it's"));
	sys->werrstr("what it was");
	show(p[0], sys->fprint(p[1], "%r"));
	l := ""; for(i = 0; i < 40; i++) l += "long ";
	show(p[0], sys->fprint(p[1], "%s", l));
	sys->print("%d\n", sys->fprint(nil, "%d", 5));
	q := sys->fildes(77); sys->print("%d\n", q != nil);
	n := 0; for(i = 0; i < 3000; i++) { n += sys->fprint(p[1], "%d;", i & 7); if(i % 50 == 49) { b := array[200] of byte; n -= sys->read(p[0], b, len b); } } sys->print("%d\n", n);
}

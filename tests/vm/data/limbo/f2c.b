implement F2c;
include "sys.m"; sys: Sys;
include "draw.m";
F2c: module { init: fn(nil: ref Draw->Context, argv: list of string); };
ls(p: string) { (ok, d) := sys->stat(p); sys->print("%s: %d dir %d\n", p, ok, (d.mode & Sys->DMDIR) != 0); }
rd(c: chan of int) { fd := sys->open("/chan/x", Sys->ORDWR); if(fd == nil) { sys->print("rd %r\n"); c <-= -1; return; } b := array[10] of byte; s := ""; while((n := sys->read(fd, b, 10)) > 0) s += string b[0:n]; sys->print("read %s; write %d\n", s, sys->fprint(fd, "hello")); fd = nil; c <-= 0; }
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH;
	a := array[] of {"/chan", "/dev", "/fd", "/prog", "/env", "#s", "#c", "#p", "#e", "/dev/cons", "#c/null"};
	for(i := 0; i < len a; i++) ls(a[i]);
	sys->print("bind %d\n", sys->bind("#s", "/chan", Sys->MBEFORE|Sys->MCREATE) > 0);
	fio := sys->file2chan("/chan", "x");
	if(fio == nil) { sys->print("%r\n"); return; }
	c := chan of int; closed := chan[4] of int; spawn rd(c);
	data := array of byte "some longer data here";
	for(;;) alt {
		(off, cnt, nil, rc) := <-fio.read =>
			if(rc == nil) { closed <-= 1; continue; }
			if(off >= len data) { rc <-= (nil, nil); continue; }
			e := off + cnt; if(e > len data) e = len data;
			rc <-= (data[off:e], nil);
		(off, d, nil, wc) := <-fio.write =>
			if(wc == nil) { closed <-= 1; continue; }
			sys->print("got %s at %d\n", string d, off); wc <-= (len d, nil);
		v := <-c => sys->print("done %d\n", v); exit;
	}
}

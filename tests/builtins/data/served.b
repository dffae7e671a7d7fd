implement Served;
include "sys.m";
	sys: Sys;
include "draw.m";

Served: module { init: fn(nil: ref Draw->Context, nil: list of string); };

init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH;
	io := sys->file2chan("/", "echo");
	if(io == nil){
		sys->print("file2chan: %r\n");
		return;
	}
	done := chan of int;
	spawn client(done);
	store := array of byte "nothing yet";
	for(;;) alt {
	(off, count, nil, rc) := <-io.read =>
		if(off >= len store)
			rc <-= (nil, nil);
		else {
			end := off+count;
			if(end > len store)
				end = len store;
			rc <-= (store[off:end], nil);
		}
	(nil, data, nil, wc) := <-io.write =>
		if(string data == "bad")
			wc <-= (0, "rejected");
		else {
			store = data;
			wc <-= (len data, nil);
		}
	<-done =>
		io = nil;
		sys->print("after %d\n", sys->open("/echo", Sys->OREAD) == nil);
		return;
	}
}

client(done: chan of int)
{
	fd := sys->open("/echo", Sys->ORDWR);
	buf := array[5] of byte;
	while((n := sys->read(fd, buf, len buf)) > 0)
		sys->print("[%s]\n", string buf[0:n]);
	sys->print("fprint %d\n", sys->fprint(fd, "hello %d", 42));
	n = sys->pread(fd, buf, len buf, big 3);
	sys->print("pread %d [%s]\n", n, string buf[0:n]);
	sys->print("bad %d %r\n", sys->fprint(fd, "bad"));
	(ok, d) := sys->stat("/echo");
	sys->print("stat %d %s\n", ok, d.name);
	done <-= 1;
}

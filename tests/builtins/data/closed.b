implement Closed;
include "sys.m";
	sys: Sys;
include "draw.m";

Closed: module { init: fn(nil: ref Draw->Context, nil: list of string); };
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH;
	sys->bind("#s", "/chan", Sys->MBEFORE);
	io := sys->file2chan("/chan", "echo");
	if(io == nil){
		sys->print("%r\n");
		return;
	}
	spawn client();
	closed := 0;
	data := array of byte "served data";
	while(closed < 3) alt {
	(off, count, nil, rc) := <-io.read =>
		if(rc == nil){
			closed++;
			sys->print("read closed %d %d\n", off, count);
		}else if(off >= len data)
			rc <-= (nil, nil);
		else {
			end := off+count;
			if(end > len data)
				end = len data;
			rc <-= (data[off:end], nil);
		}
	(nil, d, nil, wc) := <-io.write =>
		if(wc == nil){
			closed++;
			sys->print("write closed %d\n", d == nil);
		}else
			wc <-= (len d, nil);
	}
	sys->print("done\n");
}

client()
{
	fd := sys->open("/chan/echo", Sys->ORDWR);
	b := array[7] of byte;
	n := sys->read(fd, b, 4);
	sys->print("%d %s\n", n, string b[0:n]);
	n = sys->readn(fd, b, 7);
	sys->print("%d %s\n", n, string b[0:n]);
	n = sys->readn(fd, b, 7);
	sys->print("%d\n", n);
	fd = nil;
	fd = sys->open("/chan/echo", Sys->OREAD);
}

implement Hangups;

include "sys.m";
	sys: Sys;
include "draw.m";

Hangups: module { init: fn(nil: ref Draw->Context, nil: list of string); };

Node: adt {
	fd:	ref Sys->FD;
	next:	cyclic ref Node;
};

write(fd: ref Sys->FD, text: string)
{
	node := ref Node(fd, nil);
	node.next = node;
	sys->fprint(node.fd, "%s", text);
}

sleeper(c: chan of string)
{
	for(i := 0; i < 3; i++)
		sys->sleep(20);
	c <-= "awake";
}

drain(fd: ref Sys->FD)
{
	buf := array[100] of byte;
	while((n := sys->read(fd, buf, len buf)) > 0)
		sys->print("%s\n", string buf[0:n]);
	sys->print("end %d\n", n);
}

ends(): (ref Sys->FD, ref Sys->FD)
{
	p := array[2] of ref Sys->FD;
	sys->pipe(p);
	return (p[0], p[1]);
}

init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH;
	(w, r) := ends();
	write(w, "nobody else runs");
	w = nil;
	drain(r);
	c := chan of string;
	(w, r) = ends();
	write(w, "somebody sleeps");
	w = nil;
	spawn sleeper(c);
	drain(r);
	sys->print("%s\n", <-c);
}

implement Waits;

include "sys.m";
	sys: Sys;
include "draw.m";

Waits: module { init: fn(nil: ref Draw->Context, nil: list of string); };

init(nil: ref Draw->Context, argv: list of string)
{
	sys = load Sys Sys->PATH;
	fds := array[2] of ref Sys->FD;
	sys->pipe(fds);
	case hd tl argv {
	"forever" =>
		sys->read(fds[0], array[1] of byte, 1);
	"full" =>
		spawn reader(fds[0]);
		n := 0;
		block := array[1000] of {* => byte 1};
		for(i := 0; i < 100; i++)
			n += sys->write(fds[1], block, len block);
		sys->print("%d written\n", n);
	"stream" =>
		spawn writer(fds[1]);
		fds[1] = nil;
		n := sys->stream(fds[0], sys->fildes(1), 64);
		sys->print("\n%d streamed\n", n);
	}
}

reader(fd: ref Sys->FD)
{
	n := 0;
	b := array[777] of byte;
	while(n < 100000)
		n += sys->read(fd, b, len b);
	sys->print("%d read\n", n);
}

writer(fd: ref Sys->FD)
{
	for(i := 0; i < 5; i++){
		sys->fprint(fd, "part %d;", i);
		sys->sleep(1);
	}
}

implement Failures;

# Exceptions that built-in functions raise: what is noted of them, and who is told how a process ends.

include "sys.m";
	sys: Sys;
include "draw.m";
include "math.m";
	math: Math;

Failures: module
{
	init: fn(nil: ref Draw->Context, argv: list of string);
};

init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH;
	math = load Math Math->PATH;
	for(kind := 0; kind < 4; kind++) {
		{
			fail(kind);
		} exception {
		"*" =>
			sys->print("noted: %s\n", contents(prog("exception")));
		}
	}
	wait := prog("wait");
	for(kind = 0; kind < 4; kind++) {
		spawn fail(kind);
		sys->print("ended: %s\n", contents(wait));
	}
}

fail(kind: int)
{
	case kind {
	0 =>
		math->dot(array[1] of real, array[2] of real);
	1 =>
		sys->byte2char(array[1] of byte, 2);
	2 =>
		(array[1] of int)[kind]++;
	3 =>
		raise "fail:quietly";
	}
}

prog(name: string): ref Sys->FD
{
	return sys->open("/prog/" + string sys->pctl(0, nil) + "/" + name, Sys->OREAD);
}

contents(fd: ref Sys->FD): string
{
	text := array[100] of byte;
	return string text[:sys->read(fd, text, len text)];
}

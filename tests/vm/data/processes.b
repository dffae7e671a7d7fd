implement Processes;

include "sys.m";
	sys: Sys;
include "draw.m";

Processes: module { init: fn(nil: ref Draw->Context, nil: list of string); };

Odd: exception(int);

init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH;
	pid := sys->pctl(0, nil);
	waiting := sys->open("#p/" + string pid + "/wait", Sys->OREAD);
	spawn ends();
	sys->print("%s\n", tail(waiting));
	spawn fails("fail:sad");
	sys->print("%s\n", tail(waiting));

	sync := chan of int;
	spawn sleeps(sync);
	sys->print("%d\n", control(<-sync, "kill"));
	sys->print("%s\n", tail(waiting));
	spawn receives(sync);
	child := <-sync;
	sys->print("[%s]\n", state(child));
	sys->print("%d\n", control(child, "kill"));
	sys->print("%s\n", tail(waiting));
	sys->print("%d\n", control(child, "kill"));
	sys->print("%r\n");
	sys->print("%d %r\n", control(pid, "dance now"));

	spawn leads(sync, "notifyleader");
	<-sync;
	sys->print("%s\n", tail(waiting));
	spawn leads(sync, "propagate");
	<-sync;
	sys->print("%s\n", tail(waiting));

	variables(sync);
	descriptors();
	{
		raise Odd(3);
	}exception {
	Odd =>
		sys->print("caught\n");
	}
	{
		raise "string";
	}exception {
	"*" =>
		sys->print("%s\n", contents("/prog/" + string pid + "/exception"));
	}
	spawn endless(sync);
	sys->print("%d\n", control(<-sync, "killgrp"));
	sys->print("%s\n", tail(waiting));
}

ends()
{
}

fails(why: string)
{
	raise why;
}

sleeps(sync: chan of int)
{
	sync <-= sys->pctl(0, nil);
	sys->sleep(100000);
}

receives(sync: chan of int)
{
	never := chan of int;
	sync <-= sys->pctl(0, nil);
	<-never;
}

endless(sync: chan of int)
{
	sync <-= sys->pctl(Sys->NEWPGRP, nil);
	for(;;)
		sys->sleep(0);
}

leads(sync: chan of int, mode: string)
{
	never := chan of int;
	control(sys->pctl(Sys->NEWPGRP, nil), "exceptions " + mode);
	spawn member(never, "one");
	spawn sleeper();
	sys->sleep(0);
	spawn fails("fail:group");
	sync <-= 1;
	{
		<-never;
	}exception e {
	"*" =>
		sys->print("%s: leader %s\n", mode, e);
	}
}

member(never: chan of int, name: string)
{
	{
		<-never;
	}exception e {
	"*" =>
		sys->print("member %s %s\n", name, e);
	}
}

sleeper()
{
	{
		sys->sleep(100);
		sys->print("slept\n");
	}exception e {
	"*" =>
		sys->print("sleeper %s\n", e);
	}
}

variables(sync: chan of int)
{
	sys->print("[%s]\n", contents("/env/none"));
	fd := sys->create("/env/v", Sys->OWRITE, 8r600);
	sys->fprint(fd, "value");
	sys->print("%s %s\n", contents("/env/v"), contents("#e/v"));
	spawn forks(sync);
	<-sync;
	sys->print("%s\n", contents("/env/v"));
	sys->print("%d\n", sys->remove("/env/v"));
	sys->print("%d\n", sys->remove("/env/v"));
}

forks(sync: chan of int)
{
	sys->pctl(Sys->FORKENV, nil);
	fd := sys->create("/env/v", Sys->OWRITE, 8r600);
	sys->fprint(fd, "other");
	sys->print("%s\n", contents("/env/v"));
	sync <-= 1;
}

descriptors()
{
	fds := array[2] of ref Sys->FD;
	sys->pipe(fds);
	copy := sys->open("/fd/" + string fds[1].fd, Sys->ORDWR);
	sys->fprint(copy, "through");
	b := array[10] of byte;
	sys->print("%s\n", string b[0:sys->read(fds[0], b, len b)]);
	sys->print("%d\n", sys->open("/fd/77", Sys->OREAD) == nil);
}

control(pid: int, what: string): int
{
	return sys->fprint(sys->open("/prog/" + string pid + "/ctl", Sys->OWRITE), "%s", what);
}

state(pid: int): string
{
	(nil, words) := sys->tokenize(contents("/prog/" + string pid + "/status"), " ");
	return hd tl tl tl tl words + " " + hd tl tl tl tl tl tl words;
}

contents(name: string): string
{
	fd := sys->open(name, Sys->OREAD);
	if(fd == nil)
		return sys->sprint("%r");
	b := array[200] of byte;
	return string b[0:sys->read(fd, b, len b)];
}

tail(fd: ref Sys->FD): string
{
	b := array[200] of byte;
	n := sys->read(fd, b, len b);
	for(i := 0; i < n; i++)
		if(b[i] == byte ' ')
			break;
	return string b[i+1:n];
}

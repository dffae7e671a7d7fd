implement Loads;

include "sys.m";
	sys: Sys;
include "draw.m";
include "loader.m";
	loader: Loader;

Loads: module
{
	init: fn(nil: ref Draw->Context, nil: list of string);
	twice: fn(n: int, s: string): int;
};

Twice: module
{
	twice: fn(n: int, s: string): int;
};

# What Loader makes, as something that can be called.
Maker: module
{
	newmod: fn(name: string, ss, nlink: int, inst: array of Loader->Inst,
		data: ref Loader->Niladt): Twice;
	tnew: fn(mp: Twice, size: int, map: array of byte): int;
	ext: fn(mp: Twice, idx, pc: int, tdesc: int): int;
	ifetch: fn(mp: Twice): array of Loader->Inst;
};

twice(n: int, s: string): int
{
	for(i := 0; i < len s; i++)
		n += n;
	return n;
}

init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH;
	loader = load Loader Loader->PATH;
	maker := load Maker Loader->PATH;
	me := load Nilmod "$self";
	code := loader->ifetch(me);
	types := loader->tdesc(me);
	links := loader->link(me);
	sys->print("%d links\n", len links);
	pc := frame := -1;
	for(i := 0; i < len links; i++){
		sys->print("%s %ux\n", links[i].name, links[i].sig);
		if(links[i].name == "twice")
			(pc, frame) = (links[i].pc, links[i].tdesc);
	}
	end := pc;
	while(int code[end].op != 12)	# ret
		end++;
	part := array[end + 1 - pc] of Loader->Inst;
	part[0:] = code[pc:end+1];
	for(i = 0; i < len part; i++)
		if((int part[i].addr & 7) == 2)	# an immediate destination: a branch
			part[i].dst -= pc;
	data := loader->dnew(8, array[] of {byte 0});
	made := maker->newmod("made", 512, 1, part, data);
	sys->print("%d\n", maker->ext(made, 0, 0, 1));
	sys->print("%r\n");
	number := maker->tnew(made, types[frame].size, types[frame].map);
	sys->print("%d\n", number);
	sys->print("%d\n", maker->ext(made, 1, 0, number));
	sys->print("%r\n");
	sys->print("%d\n", maker->ext(made, 0, 0, number));
	sys->print("%d\n", len maker->ifetch(made) == len part);
	sys->print("%d\n", made->twice(5, "abc"));
	sys->print("%d\n", maker->newmod("none", 0, 0, nil, data) == nil);
	sys->print("%r\n");
	built := load Nilmod "$Sys";
	sys->print("%d %d\n", len loader->ifetch(built), len loader->tdesc(built));
	sys->print("%d\n", loader->link(nil) == nil);
}

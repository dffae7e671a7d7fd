# A table of samples sorted into the classes of a compiled model:
#
#	dis run classify.dis MODEL.dis SAMPLES.csv
#
# One line for each row: its number, label and probability, separated by commas. What each class got
# is told in the end, on standard error.
implement Classify;

include "sys.m";
	sys: Sys;
include "draw.m";
include "ml.m";
	ml: Ml;
	Tensor, Samples: import ml;
include "model.m";
	model: Model;

Classify: module
{
	init:	fn(nil: ref Draw->Context, argv: list of string);
};

BATCH: con 256;

init(nil: ref Draw->Context, argv: list of string)
{
	sys = load Sys Sys->PATH;
	ml = load Ml Ml->PATH;
	if(ml == nil)
		fail(sys->sprint("%s: %r", Ml->PATH));
	if(len argv != 3)
		fail("usage: classify.dis MODEL.dis SAMPLES.csv");
	path := hd tl argv;
	model = load Model path;
	if(model == nil)
		fail(sys->sprint("%s: %r", path));
	names := row(model->labels());
	counts := array[len names] of { * => 0 };
	table := hd tl tl argv;
	fd := sys->open(table, Sys->OREAD);
	if(fd == nil)
		fail(sys->sprint("%s: %r", table));
	{
		classify(ml->samples(fd, "inputs", "label", model->shape()), names, counts);
	} exception e {
	"ml: *" =>
		fail(e[len "ml: ":]);
	}
	for(i := 0; i < len counts; i++)
		sys->fprint(sys->fildes(2), "%s: %d\n", names[i], counts[i]);
}

classify(samples: ref Samples, names: array of string, counts: array of int)
{
	number := 0;
	while((x := ml->take(samples, BATCH)) != nil){
		p := ml->reals(ml->softmax(model->forward(x), -1));
		width := len names;
		for(start := 0; start < len p; start += width){
			best := 0;
			for(i := 1; i < width; i++)
				if(p[start+i] > p[start+best])
					best = i;
			counts[best]++;
			sys->print("%d,%s,%.3f\n", number++, names[best], p[start+best]);
		}
	}
}

row(l: list of string): array of string
{
	a := array[len l] of string;
	for(i := 0; l != nil; l = tl l)
		a[i++] = hd l;
	return a;
}

fail(why: string)
{
	sys->fprint(sys->fildes(2), "classify: %s\n", why);
	raise "fail:" + why;
}

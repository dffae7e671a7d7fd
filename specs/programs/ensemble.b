# Two compiled models that vote: each runs in a process of its own, gets batches over a channel and
# answers with probabilities over another.
#
#	dis run ensemble.dis FIRST.dis SECOND.dis SAMPLES.npy
#
# One line for each sample: its number, the label of the highest mean probability, that probability,
# and what either model would have said where the two do not agree.
implement Ensemble;

include "sys.m";
	sys: Sys;
include "draw.m";
include "ml.m";
	ml: Ml;
	Tensor: import ml;
include "model.m";

Ensemble: module
{
	init:	fn(nil: ref Draw->Context, argv: list of string);
};

BATCH: con 128;

Voter: adt
{
	path:	string;
	batches:	chan of ref Tensor;	# nil ends the process
	votes:	chan of (ref Tensor, string);	# probabilities, or what went wrong
	names:	array of string;
};

init(nil: ref Draw->Context, argv: list of string)
{
	sys = load Sys Sys->PATH;
	ml = load Ml Ml->PATH;
	if(ml == nil)
		fail(sys->sprint("%s: %r", Ml->PATH));
	if(len argv != 4)
		fail("usage: ensemble.dis FIRST.dis SECOND.dis SAMPLES.npy");
	paths := tl argv;
	voters := array[2] of ref Voter;
	shape: list of int;
	for(i := 0; i < len voters; i++){
		model := load Model hd paths;
		if(model == nil)
			fail(sys->sprint("%s: %r", hd paths));
		voters[i] = ref Voter(hd paths, chan of ref Tensor, chan of (ref Tensor, string), row(model->labels()));
		if(i == 0)
			shape = model->shape();
		spawn voter(model, voters[i].batches, voters[i].votes);
		paths = tl paths;
	}
	if(len voters[0].names != len voters[1].names)
		fail("the models have not the same labels");
	fd := sys->open(hd paths, Sys->OREAD);
	if(fd == nil)
		fail(sys->sprint("%s: %r", hd paths));
	why := "";
	{
		vote(voters, fd, shape);
	} exception e {
	"ml: *" =>
		why = e[len "ml: ":];
	"voter: *" =>
		why = e[len "voter: ":];
	}
	for(i = 0; i < len voters; i++)
		voters[i].batches <-= nil;
	if(why != nil)
		fail(why);
}

voter(model: Model, batches: chan of ref Tensor, votes: chan of (ref Tensor, string))
{
	while((x := <-batches) != nil){
		{
			votes <-= (ml->softmax(model->forward(x), -1), nil);
		} exception e {
		"*" =>
			votes <-= (nil, e);
		}
	}
}

vote(voters: array of ref Voter, fd: ref Sys->FD, shape: list of int)
{
	samples := ml->samples(fd, "inputs", "label", shape);
	number := agreed := 0;
	while((x := ml->take(samples, BATCH)) != nil){
		for(i := 0; i < len voters; i++)
			voters[i].batches <-= x;
		p := array[len voters] of ref Tensor;
		trouble := "";
		for(got := 0; got < len voters; got++) alt {
		(t, why) := <-voters[0].votes =>
			p[0] = t;
			trouble += why;
		(t, why) := <-voters[1].votes =>
			p[1] = t;
			trouble += why;
		}
		if(trouble != nil)
			raise "voter: " + trouble;
		(n, a) := count(voters, p, number);
		number += n;
		agreed += a;
	}
	sys->fprint(sys->fildes(2), "%d samples, %d of one mind\n", number, agreed);
}

# print what a batch was voted to be; return how many samples it has and for how many both agree
count(voters: array of ref Voter, p: array of ref Tensor, number: int): (int, int)
{
	names := voters[0].names;
	width := len names;
	first := ml->reals(p[0]);
	second := ml->reals(p[1]);
	mean := ml->reals(ml->scale(ml->add(p[0], p[1]), 0.5, 0.0));
	n := agreed := 0;
	for(start := 0; start < len mean; start += width){
		best := highest(mean, start, width);
		a := highest(first, start, width);
		b := highest(second, start, width);
		sys->print("%d\t%s\t%.3f", number+n, names[best], mean[start+best]);
		if(a == b)
			agreed++;
		else
			sys->print("\t%s or %s", names[a], names[b]);
		sys->print("\n");
		n++;
	}
	return (n, agreed);
}

highest(a: array of real, start, width: int): int
{
	best := 0;
	for(i := 1; i < width; i++)
		if(a[start+i] > a[start+best])
			best = i;
	return best;
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
	sys->fprint(sys->fildes(2), "ensemble: %s\n", why);
	raise "fail:" + why;
}

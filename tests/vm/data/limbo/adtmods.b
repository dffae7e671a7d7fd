implement Adtmods;
include "sys.m";
	sys: Sys;
include "draw.m";
include "stackq.m";
	q: Stackq;
	Item, Ex: import q;
Adtmods: module { init: fn(nil: ref Draw->Context, nil: list of string); };
double(i: ref Item): int { i.n *= 2; return i.n; }
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH;
	q = load Stackq Stackq->PATH;
	q->init();
	i := q->make("a");
	i = i.push("b").push("c");
	sys->print("%s %d %s\n", i.text(), q->count, (q->lastitem).k);
	sys->print("%d %s\n", q->each(i, double), i.text());
	q->name = "renamed";
	for(n := 0; n < 5; n += 2) {
		{
			(j, s) := q->take(n);
			sys->print("%s %s\n", j.k, s);
		} exception e {
		Ex => (s, k) := e; sys->print("ex %s %d\n", s, k);
		}
	}
	q->lastitem = (q->lastitem).next;
	q->couple = ((q->couple).t0 + 1, "w");
	(a, b) := q->couple;
	sys->print("%s %d %s\n", (q->lastitem).text(), a, b);
	p := load Stackq Stackq->PATH;
	p->init();
	p->lastitem = i;
	(j, s) := p->take(1);
	sys->print("%s %s %d %d\n", j.k, s, p->count, q->count);
	q->lastitem = nil;
	sys->print("[%s]\n", (q->lastitem).text());
}

implement Mods2;
include "sys.m"; sys: Sys;
include "draw.m";
include "mods2.m";
Mods2: module { init: fn(nil: ref Draw->Context, argv: list of string); sq: fn(x: int): int; level: int; };
base := 100;
sq(x: int): int { return x * x + base; }
use(p: Plug): int { return p->next() + p->count; }
init(ctx: ref Draw->Context, argv: list of string)
{
	sys = load Sys Sys->PATH;
	a := load Plug Plug->PATH; b := load Plug Plug->PATH; c := a;
	if(a == nil || b == nil) { sys->print("load %r\n"); return; }
	sys->print("%s %s %s\n", a->init(1), b->init(2), c->name);
	sys->print("%d %d %d %d\n", a->next(), a->next(), b->next(), c->next());
	sys->print("%d %d %d %d\n", a->count, b->count, c->count, use(b));
	a->count = 7; a->tab[1] = 50; sys->print("%d %d %d\n", c->count, c->tab[1], b->tab[1]);
	for(l := a->apply(sq, 4); l != nil; l = tl l) sys->print("%d ", hd l); sys->print("\n");
	base = 0;
	for(l = b->apply(sq, 4); l != nil; l = tl l) sys->print("%d ", hd l); sys->print("\n");
	for(k := 0; k < 4; k++) { { a->fail(k); sys->print("ok\n"); } exception e { Plug->E => v := e; sys->print("E %d\n", v); "fail:*" => sys->print("%s\n", e); "*" => sys->print("other %s\n", e); } }
	T: import b; cc := b->ch();
	for(i := 0; i < 2; i++) { t := <-cc; sys->print("%s %s %d\n", t.s, t.show(), tagof t); pick x := t { One => sys->print("%d\n", x.a); Two => sys->print("%s\n", hd x.b); } }
	t := T.mk("q"); sys->print("%s\n", t.s);
	me := load Mods2 "$self"; level = 3; sys->print("%d %d\n", me->level, me->sq(5)); me->level = 9; sys->print("%d\n", level);
	o := load Mods2 "/mods2.dis"; sys->print("%d %d\n", o->level, o->sq(5)); o->level = 1; sys->print("%d\n", level);
	n := load Plug "/none"; sys->print("%d %r\n", n == nil); { n->next(); } exception e { "*" => sys->print("%s\n", e); }
	w := load Sys Plug->PATH; sys->print("%d %r\n", w == nil);
}

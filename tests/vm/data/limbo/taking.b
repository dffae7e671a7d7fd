implement Taking;
include "sys.m"; sys: Sys; print: import sys;
include "draw.m";
Taking: module { init: fn(nil: ref Draw->Context, argv: list of string); };
w(id, n: int, c: chan of int) { for(i := 0; i < n; i++) print("w%d.%d ", id, i); c <-= id; }
quiet(id, n: int, c: chan of int) { s := 0; for(i := 0; i < n; i++) s += i; c <-= id; }
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH; c := chan of int;
	for(i := 0; i < 3; i++) spawn w(i, 4, c);
	for(i = 0; i < 5; i++) print("m%d ", i);
	for(i = 0; i < 3; i++) print("d%d ", <-c);
	print("\n");
	for(i = 0; i < 4; i++) spawn quiet(i, i*3000, c);
	for(i = 0; i < 3; i++) print("q%d ", <-c);
	print("last %d\n", <-c);
}

implement Tuples;

# The Limbo compiler takes neighbouring variables for a tuple, though a real in it would lie
# elsewhere; the object file beside this source is what it makes of that.

include "sys.m";
	sys: Sys;
include "draw.m";

Tuples: module
{
	init: fn(nil: ref Draw->Context, nil: list of string);
};

triple(n: int): (int, (string, real, int), string)
{
	return (n, ("s" + string n, real n, n + 1), "t");
}

init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH;
	(a, (b, c, d), e) := triple(3);
	sys->print("%d %s %g %d %s\n", a, b, c, d, e);
}

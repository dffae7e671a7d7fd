implement Pairs;
include "sys.m";
include "pairs.m";
pair(n: int): (int, string)
{
	return (n, "pair" + string n);
}
triple(s: string): (string, list of string, (int, string))
{
	return (s + "!", s :: "z" :: nil, (len s, s + s));
}

Pairs: module
{
	PATH: con "pairs.dis";
	pair: fn(n: int): (int, string);
	triple: fn(s: string): (string, list of string, (int, string));
};

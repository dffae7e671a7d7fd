implement Calls;

Calls: module
{
	P: adt { n: int; s: string; };

	words:	fn(a, b: int): int;
	bytes:	fn(b: byte): byte;
	bigs:	fn(b: big): big;
	reals:	fn(r: real): real;
	text:	fn(s: string): string;
	turned:	fn(a: array of byte): array of byte;
	nested:	fn(t: (int, (string, real))): ((real, string), int);
	rows:	fn(a: array of array of int): array of array of int;
	lists:	fn(l: list of array of string): array of list of string;
	pairs:	fn(l: list of (int, string)): array of (string, int);
	blocks:	fn(a: array of array of byte): list of array of byte;
	cubes:	fn(a: array of array of array of real): array of array of array of real;
	few:	fn(l: list of byte): int;
	names:	fn(a: array of string): array of string;
	four:	fn(): (int, string, real, big);
	nils:	fn(): (string, array of int, list of string);
	deep:	fn(): (int, array of string, list of (int, int));
	make:	fn(n: int): ref P;
	look:	fn(p: ref P): int;
	item:	fn(a: array of int, i: int): int;
};

words(a, b: int): int
{
	return a - b;
}

bytes(b: byte): byte
{
	return b;
}

bigs(b: big): big
{
	return b;
}

reals(r: real): real
{
	return r;
}

text(s: string): string
{
	return s + string len s;
}

turned(a: array of byte): array of byte
{
	r := array[len a] of byte;
	for(i := 0; i < len a; i++)
		r[i] = a[len a - 1 - i];
	return r;
}

nested(t: (int, (string, real))): ((real, string), int)
{
	return ((t.t1.t1, t.t1.t0), t.t0);
}

rows(a: array of array of int): array of array of int
{
	for(i := 0; i < len a; i++)
		if(len a[i] > 0)
			a[i][0]++;
	return a;
}

lists(l: list of array of string): array of list of string
{
	r := array[len l] of list of string;
	for(i := 0; l != nil; l = tl l) {
		for(j := 0; j < len hd l; j++)
			r[i] = (hd l)[j] :: r[i];
		i++;
	}
	return r;
}

pairs(l: list of (int, string)): array of (string, int)
{
	r := array[len l] of (string, int);
	for(i := 0; l != nil; l = tl l)
		r[i++] = ((hd l).t1, (hd l).t0);
	return r;
}

blocks(a: array of array of byte): list of array of byte
{
	l: list of array of byte;
	for(i := 0; i < len a; i++)
		l = a[i] :: l;
	return l;
}

cubes(a: array of array of array of real): array of array of array of real
{
	return a;
}

few(l: list of byte): int
{
	return len l;
}

names(a: array of string): array of string
{
	return a;
}

four(): (int, string, real, big)
{
	return (1, "two", 3.5, big 1 << 40);
}

nils(): (string, array of int, list of string)
{
	return (nil, nil, nil);
}

deep(): (int, array of string, list of (int, int))
{
	return (1, array[] of {"a", "b"}, (1, 2) :: (3, 4) :: nil);
}

make(n: int): ref P
{
	return ref P(n, "made");
}

look(p: ref P): int
{
	return p.n;
}

item(a: array of int, i: int): int
{
	return a[i];
}

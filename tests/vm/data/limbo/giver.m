Giver: module {
	PATH: con "/giver.dis";
	R: adt { n: int; s: string; };
	str: fn(c: chan of string): string;
	num: fn(c: chan of int): int;
	rec: fn(c: chan of R): R;
	refr: fn(c: chan of ref R): ref R;
	tup: fn(c: chan of (big, string, real)): (big, string, real);
	two: fn(c: chan of string, d: chan of string): string;
	pass: fn(c: chan of (int, string)): (int, string);
	any: fn[T](c: chan of T): T;
};

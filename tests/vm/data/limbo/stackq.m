Stackq: module
{
	PATH: con "stackq.dis";
	Item: adt { k: string; n: int; next: cyclic ref Item;
		push: fn(i: self ref Item, k: string): ref Item; text: fn(i: self ref Item): string; };
	Ex: exception(string, int);
	lastitem: ref Item;
	count: int;
	name: string;
	couple: (int, string);
	init: fn();
	make: fn(k: string): ref Item;
	take: fn(n: int): (ref Item, string) raises Ex;
	each: fn(i: ref Item, f: ref fn(i: ref Item): int): int;
};

implement Stackq;
include "sys.m";
include "stackq.m";
init() { count = 0; name = "stackq"; couple = (1, "p"); }
make(k: string): ref Item { count++; lastitem = ref Item(k, count, nil); return lastitem; }
Item.push(i: self ref Item, k: string): ref Item { j := make(k); j.next = i; return j; }
Item.text(i: self ref Item): string { if(i == nil) return ""; return i.k + string i.n + " " + i.next.text(); }
take(n: int): (ref Item, string) raises Ex
{
	for(i := lastitem; i != nil && n > 0; i = i.next) n--;
	if(i == nil) raise Ex(name, n);
	return (i, i.k + name);
}
each(i: ref Item, f: ref fn(i: ref Item): int): int { s := 0; for(; i != nil; i = i.next) s += f(i); return s; }

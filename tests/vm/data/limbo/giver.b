implement Giver;
include "giver.m";
str(c: chan of string): string { return <-c; }
num(c: chan of int): int { return <-c; }
rec(c: chan of R): R { return <-c; }
refr(c: chan of ref R): ref R { return <-c; }
tup(c: chan of (big, string, real)): (big, string, real) { return <-c; }
two(c, d: chan of string): string { alt { s := <-c => return s; s := <-d => return s; } }
pass(c: chan of (int, string)): (int, string) { return pass1(c); }
pass1(c: chan of (int, string)): (int, string) { return pass2(c); }
pass2(c: chan of (int, string)): (int, string) { return <-c; }
any[T](c: chan of T): T { return <-c; }

implement Case2;
include "sys.m"; sys: Sys;
include "draw.m";
Case2: module { init: fn(nil: ref Draw->Context, argv: list of string); };
Op: adt { pick { Push => n: int; Add or Sub or Mul => Jz or Jmp => t: int; Call => f: int; args: int; Ret => Print => s: string; Load or Store => slot: int; } };
Frame: adt { pc: int; locals: array of int; up: cyclic ref Frame; };
VM: adt { code: array of ref Op; stack: list of int; fr: ref Frame; steps: int; out: string;
	push: fn(v: self ref VM, x: int); pop: fn(v: self ref VM): int; run: fn(v: self ref VM): string; };
VM.push(v: self ref VM, x: int) { v.stack = x :: v.stack; }
VM.pop(v: self ref VM): int { if(v.stack == nil) raise "fail:underflow"; x := hd v.stack; v.stack = tl v.stack; return x; }
VM.run(v: self ref VM): string
{
	for(;;) {
		if(v.fr == nil) return v.out;
		if(v.steps++ > 2000) raise "fail:steps";
		op := v.code[v.fr.pc++];
		pick o := op {
		Push => v.push(o.n);
		Add or Sub or Mul => b := v.pop(); a := v.pop(); case tagof o { tagof Op.Add => v.push(a+b); tagof Op.Sub => v.push(a-b); * => v.push(a*b); }
		Jz => if(v.pop() == 0) v.fr.pc = o.t;
		Jmp => v.fr.pc = o.t;
		Call => f := ref Frame(o.f, array[8] of {* => 0}, v.fr); for(i := o.args - 1; i >= 0; i--) f.locals[i] = v.pop(); v.fr = f;
		Ret => v.fr = v.fr.up;
		Print => v.out += sys->sprint("%s%d ", o.s, v.pop());
		Load => v.push(v.fr.locals[o.slot]);
		Store => v.fr.locals[o.slot] = v.pop();
		}
	}
}
fact(n: int): array of ref Op
{
	return array[] of {
		ref Op.Push(n), ref Op.Call(4, 1), ref Op.Print("fact "), ref Op.Ret,
		ref Op.Load(0), ref Op.Jz(12), ref Op.Load(0), ref Op.Load(0), ref Op.Push(1), ref Op.Sub, ref Op.Call(4, 1), ref Op.Jmp(14),
		ref Op.Push(1), ref Op.Ret, ref Op.Mul, ref Op.Ret };
}
exec(code: array of ref Op)
{
	{
		v := ref VM(code, nil, ref Frame(0, array[4] of {* => 0}, nil), 0, "");
		sys->print("%s in %d\n", v.run(), v.steps);
	} exception e { "fail:*" => sys->print("%s\n", e); "array*" => sys->print("bounds\n"); }
}
word(s: string): int
{
	case s {
	"zero" => return 0; "one" => return 1; "two" or "deux" or "zwei" => return 2; "three" to "trois" => return 3; "Ä" to "Ü" => return 4; "" => return -1; * => return 99;
	}
}
rng := 1;
rand(n: int): int { rng = rng * 1103515245 + 12345; return (rng >> 8 & 16r7fffff) % n; }
Heap: adt { a: array of (int, string); n: int; add: fn(h: self ref Heap, k: int, s: string); min: fn(h: self ref Heap): (int, string); };
Heap.add(h: self ref Heap, k: int, s: string) { if(h.n >= len h.a) h.a = (array[2*h.n+1] of (int, string))[0:] = h.a; i := h.n++; h.a[i] = (k, s); while(i > 0 && h.a[(i-1)/2].t0 > h.a[i].t0) { (h.a[i], h.a[(i-1)/2]) = (h.a[(i-1)/2], h.a[i]); i = (i-1)/2; } }
Heap.min(h: self ref Heap): (int, string) { r := h.a[0]; h.a[0] = h.a[--h.n]; h.a[h.n] = (0, nil); i := 0; for(;;) { c := 2*i+1; if(c >= h.n) break; if(c+1 < h.n && h.a[c+1].t0 < h.a[c].t0) c++; if(h.a[i].t0 <= h.a[c].t0) break; t := h.a[i]; h.a[i] = h.a[c]; h.a[c] = t; i = c; } return r; }
init(nil: ref Draw->Context, nil: list of string)
{
	sys = load Sys Sys->PATH;
	exec(fact(5)); exec(fact(12)); exec(fact(-1)); exec(array[] of { ref Op.Jmp(1), ref Op.Add }); exec(array[] of { ref Op.Push(1), ref Op.Add });
	ws := array[] of {"zero", "one", "two", "deux", "zwei", "three", "tic", "trois", "tz", "Ä", "Ö", "Ü", "ä", "", "zz", "a"};
	for(i := 0; i < len ws; i++) sys->print("%s:%d ", ws[i], word(ws[i])); sys->print("\n");
	h := ref Heap(nil, 0);
	for(i = 0; i < 50; i++) h.add(rand(1000), sys->sprint("i%d", i));
	s := ""; last := -1; ok := 1; while(h.n > 0) { (k, v) := h.min(); if(k < last) ok = 0; last = k; if(h.n % 10 == 0) s += sys->sprint("%d%s ", k, v); } sys->print("%s%d\n", s, ok);
	m := array[5] of { 1 => array[] of {1, 2}, 3 or 4 => array[] of {7}, * => array[0] of int }; for(i = 0; i < 5; i++) sys->print("%d ", len m[i]); sys->print("\n");
	b := array[16] of byte; for(i = 0; i < 16; i++) b[i] = byte (i * 37); x := 0; for(i = 0; i < 16; i++) { x = (x << 3 ^ x >> 29) + int b[i]; b[15-i] ^= byte x; } for(i = 0; i < 16; i++) sys->print("%.2x", int b[i]); sys->print(" %x\n", x);
	bg := big 1; for(i = 1; i < 25; i++) { bg = bg * big i ^ big (i << 20); bg += bg >> 7; } sys->print("%bd %bx\n", bg, bg);
	r := 1.0; for(i = 0; i < 40; i++) r = r * 1.1 - 0.3 / r; sys->print("%g %.12g %f %e\n", r, r, r, r);
}

implement Fills;
# Structures that grow until memory is short: prints the milliseconds from the last object for which
# there was room to the handler, or -1 if there always was some. Arguments: which, how many times.
include "sys.m";
	sys: Sys;
include "draw.m";

Fills: module
{
	init: fn(nil: ref Draw->Context, args: list of string);
};

Node: adt {
	key, pri: int;
	left, right, up: cyclic ref Node;
};
Cell: adt {
	n: int;
	next, prev: cyclic ref Cell;
};
Vertex: adt {
	a, b, c: cyclic ref Vertex;
};
Box: adt {
	c: chan of ref Box;
	n: int;
};

last, seed, made: int;

init(nil: ref Draw->Context, args: list of string)
{
	sys = load Sys Sys->PATH;
	seed = 12345;
	args = tl args;
	kind := hd args;
	times := 1;
	if (tl args != nil)
		times = int hd tl args;
	for (i := 0; i < times; i++) {
		made = 0;
		ms := fill(kind);
		sys->print("%s %d ms, %d made\n", kind, ms, made);
	}
}

fill(kind: string): int
{
	{
		build(kind);
	} exception {
	"out of memory*" =>
		return sys->millisec() - last;
	}
	return -1;
}

note()
{
	if ((made++ & 15) == 0)
		last = sys->millisec();
}

rand(n: int): int
{
	seed = seed * 1103515245 + 12345;
	return int ((big (seed & 16r7fffffff) * big n) >> 31);
}

build(kind: string)
{
	case kind {
	"list" => alist();
	"strings" => astrings();
	"dlist" => adlist();
	"chain" => achain();
	"queue" => aqueue();
	"tree" => atree();
	"rotated" => arotated();
	"treap" => atreap();
	"splay" => asplay();
	"skew" => askew();
	"table" => atable();
	"rgraph1" => argraph1();
	"rgraph2" => argraph2();
	"rgraph3" => argraph3();
	"churn" => achurn();
	"chans" => achans();
	"chanq" => achanq();
	"lru" => alru();
	"arrays" => aarrays();
	"matrix" => amatrix();
	"rings" => rings();
	}
}

alist()
{
	l: list of int;
	for (;;) {
		l = made :: l;
		note();
	}
}

astrings()
{
	l: list of string;
	for (;;) {
		l = string made :: l;
		note();
	}
}

adlist()
{
	head := ref Cell(0, nil, nil);
	for (;;) {
		c := ref Cell(made, head, nil);
		head.prev = c;
		head = c;
		note();
	}
}

achain()
{
	head := ref Cell(0, nil, nil);
	tail := head;
	for (;;) {
		tail.next = ref Cell(made, nil, nil);
		tail = tail.next;
		note();
	}
}

aqueue()
{
	# goes round: the oldest is taken out, two are put in
	head := ref Cell(0, nil, nil);
	tail := head;
	for (;;) {
		for (i := 0; i < 3; i++) {
			c := ref Cell(made, nil, tail);
			tail.next = c;
			tail = c;
			note();
		}
		head = head.next;
		head.prev = nil;
	}
}

insert(t: ref Node, n: ref Node)
{
	for (;;) {
		if (n.key < t.key) {
			if (t.left == nil) {
				t.left = n;
				n.up = t;
				return;
			}
			t = t.left;
		} else {
			if (t.right == nil) {
				t.right = n;
				n.up = t;
				return;
			}
			t = t.right;
		}
	}
}

atree()
{
	root := ref Node(1<<29, 0, nil, nil, nil);
	for (;;) {
		insert(root, ref Node(rand(1<<30), 0, nil, nil, nil));
		note();
	}
}

rotate(t: ref Node): ref Node
{
	l := t.left;
	if (l == nil)
		return t;
	t.left = l.right;
	if (l.right != nil)
		l.right.up = t;
	l.up = t.up;
	l.right = t;
	t.up = l;
	return l;
}

arotated()
{
	root := ref Node(1<<29, 0, nil, nil, nil);
	for (;;) {
		insert(root, ref Node(rand(1<<30), 0, nil, nil, nil));
		note();
		p := root;
		for (d := rand(16); d > 0 && p.left != nil && p.right != nil; d--)
			if (rand(2))
				p = p.left;
			else
				p = p.right;
		if (p != root && p.left != nil) {
			u := p.up;
			if (u.left == p)
				u.left = rotate(p);
			else
				u.right = rotate(p);
		}
	}
}

tinsert(t: ref Node, n: ref Node): ref Node
{
	if (t == nil)
		return n;
	if (n.key < t.key) {
		l := tinsert(t.left, n);
		if (l.pri > t.pri) {
			t.left = l.right;
			l.right = t;
			return l;
		}
		t.left = l;
	} else {
		r := tinsert(t.right, n);
		if (r.pri > t.pri) {
			t.right = r.left;
			r.left = t;
			return r;
		}
		t.right = r;
	}
	return t;
}

atreap()
{
	root: ref Node;
	for (;;) {
		root = tinsert(root, ref Node(rand(1<<30), rand(1<<30), nil, nil, nil));
		note();
	}
}

splay(t: ref Node, key: int): ref Node
{
	head := ref Node(0, 0, nil, nil, nil);
	l := head;
	r := head;
	for (;;) {
		if (key < t.key) {
			c := t.left;
			if (c == nil)
				break;
			if (key < c.key) {
				t.left = c.right;
				c.right = t;
				t = c;
				if (t.left == nil)
					break;
			}
			r.left = t;
			r = t;
			t = t.left;
		} else {
			c := t.right;
			if (c == nil)
				break;
			if (key > c.key) {
				t.right = c.left;
				c.left = t;
				t = c;
				if (t.right == nil)
					break;
			}
			l.right = t;
			l = t;
			t = t.right;
		}
	}
	l.right = t.left;
	r.left = t.right;
	t.left = head.right;
	t.right = head.left;
	return t;
}

asplay()
{
	root := ref Node(1<<29, 0, nil, nil, nil);
	for (;;) {
		n := ref Node(rand(1<<30), 0, nil, nil, nil);
		root = splay(root, n.key);
		if (n.key < root.key) {
			n.left = root.left;
			n.right = root;
			root.left = nil;
		} else {
			n.right = root.right;
			n.left = root;
			root.right = nil;
		}
		root = n;
		note();
	}
}

merge(a, b: ref Node): ref Node
{
	if (a == nil)
		return b;
	if (b == nil)
		return a;
	if (b.key < a.key)
		(a, b) = (b, a);
	r := a.right;
	a.right = a.left;
	a.left = merge(r, b);
	return a;
}

askew()
{
	root: ref Node;
	for (;;) {
		root = merge(root, ref Node(rand(1<<30), 0, nil, nil, nil));
		note();
	}
}

atable()
{
	t := array[4096] of list of (int, string);
	for (;;) {
		k := rand(1<<30);
		t[k & 4095] = (k, string made) :: t[k & 4095];
		note();
	}
}

argraph1()
{
	a := array[4096] of ref Vertex;
	for (;;) {
		v := ref Vertex(a[rand(4096)], nil, nil);
		a[rand(4096)] = v;
		# all are kept in a chain, too
		v.c = a[0];
		a[0] = v;
		note();
	}
}

argraph2()
{
	rows := array[4096] of array of ref Vertex;
	for (n := 0;; n++) {
		if ((n & 4095) == 0)
			rows[n >> 12] = array[4096] of ref Vertex;
		v := ref Vertex(nil, nil, nil);
		if (n > 0) {
			i := rand(n);
			v.a = rows[i >> 12][i & 4095];
			i = rand(n);
			rows[i >> 12][i & 4095].b = v;
			i = rand(n);
			j := rand(n);
			rows[i >> 12][i & 4095].c = rows[j >> 12][j & 4095];
		}
		rows[n >> 12][n & 4095] = v;
		note();
	}
}

argraph3()
{
	all: ref Vertex;
	a := array[1<<16] of ref Vertex;
	for (;;) {
		v := ref Vertex(a[rand(1<<16)], a[rand(1<<16)], all);
		all = v;
		a[rand(1<<16)] = v;
		note();
	}
}

achurn()
{
	# rings of which one in eight is kept
	kept: list of ref Cell;
	for (;;) {
		first := ref Cell(0, nil, nil);
		p := first;
		for (i := 0; i < 20; i++) {
			p.next = ref Cell(i, nil, p);
			p = p.next;
			note();
		}
		p.next = first;
		first.prev = p;
		if (rand(8) == 0)
			kept = first :: kept;
	}
}

achans()
{
	c := chan[1] of ref Box;
	for (;;) {
		d := chan[1] of ref Box;
		d <-= ref Box(c, made);
		c = d;
		note();
	}
}

achanq()
{
	l: list of chan of int;
	for (;;) {
		c := chan[4] of int;
		c <-= made;
		l = c :: l;
		note();
	}
}

alru()
{
	t := array[1<<14] of list of ref Cell;
	head := ref Cell(0, nil, nil);
	head.next = head;
	head.prev = head;
	for (;;) {
		c := ref Cell(made, head.next, head);
		head.next.prev = c;
		head.next = c;
		h := rand(len t);
		t[h] = c :: t[h];
		# one that was used becomes the first
		h = rand(len t);
		if (t[h] != nil) {
			u := hd t[h];
			u.prev.next = u.next;
			u.next.prev = u.prev;
			u.next = head.next;
			u.prev = head;
			head.next.prev = u;
			head.next = u;
		}
		note();
	}
}

aarrays()
{
	l: list of array of byte;
	for (;;) {
		l = array[rand(3000)] of byte :: l;
		note();
	}
}

amatrix()
{
	l: list of array of ref Cell;
	c := ref Cell(0, nil, nil);
	for (;;) {
		a := array[1000] of ref Cell;
		for (i := 0; i < len a; i++)
			a[i] = c;
		l = a :: l;
		note();
	}
}

rings()
{
	# little is kept, but many rings are made and let go
	kept: list of int;
	for (i := 0; i < 15000; i++)
		kept = i :: kept;
	for (i = 0; i < 8000; i++) {
		first := ref Cell(0, nil, nil);
		p := first;
		for (j := 0; j < 8; j++) {
			p.next = ref Cell(j, nil, p);
			p = p.next;
			note();
		}
		p.next = first;
		first.prev = p;
	}
}

/* What some of the benchmark programs do, in C: twins NAME N prints the result and milliseconds. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

__attribute__((noinline)) static int32_t fibonacci(int32_t n)
{
	return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static double fib(int32_t n)
{
	return fibonacci(n);
}

static double alu(int32_t n)
{
	int32_t a = 1, b = 7;
	for (int32_t i = 0; i < n; i++) {
		a = (int32_t)((uint32_t)(a ^ (int32_t)((uint32_t)b << 3)) + (uint32_t)i);
		b = (int32_t)((uint32_t)(b & 0xffffff) * 3u + (uint32_t)(a >> 5));
		if ((a & 1) == 0)
			b = (int32_t)((uint32_t)b - (uint32_t)i);
	}
	return a;
}

static double bigs(int32_t n)
{
	int64_t x = 88172645463325252, acc = 0;
	for (int32_t i = 0; i < n; i++) {
		x ^= (int64_t)((uint64_t)x << 13);
		x ^= (x >> 7) & 0x1ffffffffffffff;
		x ^= (int64_t)((uint64_t)x << 17);
		acc += x % 1000003;
	}
	return (double)acc;
}

static double mandel(int32_t n)
{
	int32_t inside = 0;
	for (int32_t y = 0; y < n; y++) {
		double ci = 2.0 * y / n - 1.0;
		for (int32_t x = 0; x < n; x++) {
			double cr = 2.0 * x / n - 1.5, zr = 0, zi = 0;
			int32_t k = 0;
			for (; k < 60 && zr * zr + zi * zi <= 4.0; k++) {
				double t = zr * zr - zi * zi + cr;
				zi = 2.0 * zr * zi + ci;
				zr = t;
			}
			inside += k == 60;
		}
	}
	return inside;
}

static double matmul(int32_t n)
{
	size_t size = (size_t)n * (size_t)n;
	double *a = malloc(size * 8), *b = malloc(size * 8), *c = calloc(size, 8), trace = 0;
	for (int32_t i = 0; i < n; i++)
		for (int32_t j = 0; j < n; j++) {
			a[i * n + j] = (double)(i - j) / n;
			b[i * n + j] = (double)(i + 2 * j + 1) / n;
		}
	for (int32_t i = 0; i < n; i++)
		for (int32_t k = 0; k < n; k++)
			for (int32_t j = 0; j < n; j++)
				c[i * n + j] += a[i * n + k] * b[k * n + j];
	for (int32_t i = 0; i < n; i++)
		trace += c[i * n + i];
	free(a), free(b), free(c);
	return trace;
}

static double sieve(int32_t n)
{
	char *composite = calloc((size_t)n + 1, 1);
	int32_t count = 0;
	for (int32_t i = 2; i <= n; i++)
		if (!composite[i]) {
			count++;
			for (int32_t j = i + i; j <= n; j += i)
				composite[j] = 1;
		}
	free(composite);
	return count;
}

static double arrays(int32_t n)
{
	int32_t *a = malloc(1024 * sizeof *a), sum = 0;
	for (int32_t i = 0; i < 1024; i++)
		a[i] = (i * 37) & 1023;
	for (int32_t k = 0; k < n; k++) {
		int32_t j = a[k & 1023];
		a[j] = (a[j] + k) & 1023;
		sum += a[(j + k) & 1023];
	}
	free(a);
	return sum;
}

struct body {
	double x, y, z, vx, vy, vz, mass;
};

static double nbody(int32_t n)
{
	struct body *bodies[5];
	double dt = 0.001;
	for (int32_t i = 0; i < 5; i++) {
		double f = i + 1;
		bodies[i] = malloc(sizeof *bodies[i]);
		*bodies[i] = (struct body){f * 1.5, f * -0.7, f * 0.3, 0.1 / f, 0.2 * f, -0.05 * f, 1.0 / f};
	}
	for (int32_t s = 0; s < n; s++) {
		for (int32_t i = 0; i < 5; i++)
			for (int32_t j = i + 1; j < 5; j++) {
				struct body *a = bodies[i], *b = bodies[j];
				double dx = a->x - b->x, dy = a->y - b->y, dz = a->z - b->z;
				double d2 = dx * dx + dy * dy + dz * dz + 0.01;
				double mag = dt / (d2 * sqrt(d2));
				a->vx -= dx * b->mass * mag;
				a->vy -= dy * b->mass * mag;
				a->vz -= dz * b->mass * mag;
				b->vx += dx * a->mass * mag;
				b->vy += dy * a->mass * mag;
				b->vz += dz * a->mass * mag;
			}
		for (int32_t i = 0; i < 5; i++) {
			bodies[i]->x += dt * bodies[i]->vx;
			bodies[i]->y += dt * bodies[i]->vy;
			bodies[i]->z += dt * bodies[i]->vz;
		}
	}
	return bodies[0]->x;
}

static void sort(int32_t *a, int32_t n)
{
	while (n > 16) {
		int32_t pivot = a[n / 2], i = 0, j = n - 1;
		while (i <= j) {
			while (a[i] < pivot)
				i++;
			while (a[j] > pivot)
				j--;
			if (i <= j) {
				int32_t t = a[i];
				a[i++] = a[j];
				a[j--] = t;
			}
		}
		sort(a, j + 1);
		a += i, n -= i;
	}
	for (int32_t k = 1; k < n; k++) {
		int32_t v = a[k], m = k - 1;
		for (; m >= 0 && a[m] > v; m--)
			a[m + 1] = a[m];
		a[m + 1] = v;
	}
}

static double quicksort(int32_t n)
{
	int32_t *a = malloc((size_t)n * sizeof *a), middle;
	uint32_t seed = 12345;
	for (int32_t i = 0; i < n; i++) {
		seed = seed * 1103515245u + 12345u;
		a[i] = (seed >> 8) & 0xffffff;
	}
	sort(a, n);
	middle = a[n / 2];
	free(a);
	return middle;
}

struct node {
	struct node *left, *right;
	int32_t value;
};

static double lists(int32_t n)
{
	int32_t sum = 0;
	for (int32_t r = 0; r < n; r++) {
		struct node *list = NULL;
		for (int32_t i = 0; i < 2000; i++) {
			struct node *made = malloc(sizeof *made);
			made->left = list, made->value = i;
			list = made;
		}
		while (list != NULL) {
			struct node *rest = list->left;
			sum += list->value;
			free(list);
			list = rest;
		}
		sum &= 0xfffffff;
	}
	return sum;
}

static struct node *grow(int32_t depth)
{
	struct node *made = malloc(sizeof *made);
	made->left = depth ? grow(depth - 1) : NULL;
	made->right = depth ? grow(depth - 1) : NULL;
	return made;
}

static int32_t count(struct node *t)
{
	return t->left == NULL ? 1 : 1 + count(t->left) + count(t->right);
}

static void drop(struct node *t)
{
	if (t != NULL)
		drop(t->left), drop(t->right), free(t);
}

static double trees(int32_t n)
{
	int32_t total = 0;
	for (int32_t i = 0; i < 16; i++) {
		struct node *t = grow(n);
		total += count(t);
		drop(t);
	}
	return total;
}

static const struct {
	const char *name;
	double (*run)(int32_t);
} twins[] = {{"alu", alu}, {"arrays", arrays}, {"bigs", bigs}, {"fib", fib}, {"lists", lists},
	{"mandel", mandel}, {"matmul", matmul}, {"nbody", nbody}, {"qsort", quicksort}, {"sieve", sieve},
	{"trees", trees}};

int main(int argc, char **argv)
{
	for (size_t i = 0; argc > 2 && i < sizeof twins / sizeof *twins; i++)
		if (strcmp(argv[1], twins[i].name) == 0) {
			struct timespec start, end;
			clock_gettime(CLOCK_MONOTONIC, &start);
			double result = twins[i].run(atoi(argv[2]));
			clock_gettime(CLOCK_MONOTONIC, &end);
			double ms = (end.tv_sec - start.tv_sec) * 1e3 + (end.tv_nsec - start.tv_nsec) / 1e6;
			printf("%g\n", result);
			fprintf(stderr, "%s %.0f ms\n", argv[1], ms);
			return 0;
		}
	return 1;
}

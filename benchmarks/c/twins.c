/* What some of the benchmark programs do, in C: twins NAME N prints the result and milliseconds. */
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

static const struct {
	const char *name;
	double (*run)(int32_t);
} twins[] = {{"alu", alu}, {"bigs", bigs}, {"fib", fib}, {"mandel", mandel}, {"matmul", matmul},
	{"sieve", sieve}};

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

/* The primal-dual iteration by hand: everything but the planes in registers, all cores.
 *
 * What the compiled JAX iteration is measured against. Compiled at run time: K candidates, LANES pixels at a time, and
 * the simplex threshold either from a sorting network (network.h: its comparators, one S(i, j) per line) or, with
 * NEWTON, by Newton's method from the support of the last weights. `single` makes one pass over memory of the two
 * halves of a step. Planes are float32, `stride` numbers from one row to the next. Instead of the extrapolated chroma
 * 2u - old the chroma before the last step is kept, and overwritten by the next: two planes less to write. */
#include <math.h>
#include <stddef.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

typedef struct {
  int height, width;
  size_t stride;
  const float *a;                   /* edge strengths */
  float *const *c, *const *w, *const *p; /* 2K candidates, K weights, 5 dual planes */
  float sigma, tau, lambda, rho;
} Problem;

/* 2u - old at n, and its forward differences. */
static inline void differences(const float *u, const float *old, size_t n, size_t right, size_t below, float *x,
                               float *y) {
  const float here = 2 * u[n] - old[n];
  *x = 2 * u[n + right] - old[n + right] - here;
  *y = 2 * u[n + below] - old[n + below] - here;
}

__attribute__((always_inline)) static inline void ascend_pixel(
    size_t n, size_t right, size_t below, const float *restrict a, float *const *u, float *const *old,
    float *restrict p0, float *restrict p1, float *restrict p2, float *restrict p3, float *restrict p4, float sigma) {
  float q1, q2, q3, q4;
  differences(u[0], old[0], n, right, below, &q1, &q2);
  differences(u[1], old[1], n, right, below, &q3, &q4);
  const float q0 = p0[n] + sigma * a[n];
  q1 = p1[n] + sigma * q1, q2 = p2[n] + sigma * q2, q3 = p3[n] + sigma * q3, q4 = p4[n] + sigma * q4;
  const float square = q0 * q0 + q1 * q1 + q2 * q2 + q3 * q3 + q4 * q4;
  const float scale = 1.0f / sqrtf(square > 1.0f ? square : 1.0f);
  p0[n] = q0 * scale, p1[n] = q1 * scale, p2[n] = q2 * scale, p3[n] = q3 * scale, p4[n] = q4 * scale;
}

/* p <- P(p + sigma (a, grad(2u - old))) in one row. */
static void ascend(const Problem *q, int row, float *const *u, float *const *old) {
  const size_t first = row * q->stride, last = first + q->width - 1, below = row < q->height - 1 ? q->stride : 0;
#pragma GCC ivdep
  for (size_t n = first; n < last; n++)
    ascend_pixel(n, 1, below, q->a, u, old, q->p[0], q->p[1], q->p[2], q->p[3], q->p[4], q->sigma);
  ascend_pixel(last, 0, below, q->a, u, old, q->p[0], q->p[1], q->p[2], q->p[3], q->p[4], q->sigma);
}

/* Whole vectors: without the pragma short loops are unrolled before they could become one. */
#define EACH _Pragma("omp simd") for (int l = 0; l < LANES; l++)

/* theta with sum max(x - theta, 0) = 1 in every lane. */
__attribute__((always_inline)) static inline void threshold(float x[K][LANES], float before[K][LANES], float *theta) {
  float sum[LANES], count[LANES];
#ifdef NEWTON
  /* The root of the line of any subset of the entries is at most theta; that of the last support is near it. */
  int rising = 1;
  EACH { sum[l] = -1; count[l] = 0; }
  for (int k = 0; k < K; k++)
    EACH { sum[l] += before[k][l] > 0 ? x[k][l] : 0; count[l] += before[k][l] > 0 ? 1 : 0; }
  EACH theta[l] = sum[l] / count[l];
  while (rising) {
    rising = 0;
    EACH { sum[l] = -1; count[l] = 0; }
    for (int k = 0; k < K; k++)
      EACH { sum[l] += x[k][l] > theta[l] ? x[k][l] : 0; count[l] += x[k][l] > theta[l] ? 1 : 0; }
    EACH {
      const float higher = sum[l] / (count[l] > 1 ? count[l] : 1);
      rising |= higher > theta[l];
      theta[l] = higher > theta[l] ? higher : theta[l];
    }
  }
#else
  float s[K][LANES];
  (void)before, (void)count;
  memcpy(s, x, sizeof s);
#define S(I, J)                                                                                                       \
  EACH {                                                                                                              \
    const float high = s[I][l] > s[J][l] ? s[I][l] : s[J][l], low = s[I][l] > s[J][l] ? s[J][l] : s[I][l];            \
    s[I][l] = high; s[J][l] = low;                                                                                    \
  }
#include "network.h"
  EACH { sum[l] = s[0][l]; theta[l] = s[0][l] - 1.0f; }
  for (int k = 1; k < K; k++)
    EACH {
      sum[l] += s[k][l];
      const float t = (sum[l] - 1.0f) * (1.0f / (k + 1));
      theta[l] = t > theta[l] ? t : theta[l];
    }
#endif
}

/* w <- P(w - rho lambda / 2 |2u - old - c|^2), then the prox of u into old, for `lanes` pixels from `column` on. */
__attribute__((always_inline)) static inline void descend(const Problem *q, int row, int column, int lanes,
                                                          float *const *u, float *const *old) {
  const size_t n = row * q->stride + column;
  const float amount = q->rho * q->lambda / 2, tau = q->tau, lambda = q->lambda, scale = 1.0f / (1.0f + tau * lambda);
  float x[K][LANES], before[K][LANES], ahead[2][LANES], mean[2][LANES] = {{0}}, theta[LANES];
  for (int d = 0; d < 2; d++)
    EACH ahead[d][l] = l < lanes ? 2 * u[d][n + l] - old[d][n + l] : 0;
  for (int k = 0; k < K; k++) {
    const float *restrict c0 = q->c[k] + n, *restrict c1 = q->c[K + k] + n, *restrict w = q->w[k] + n;
    EACH {
      const int m = l < lanes ? l : 0;
      const float d0 = ahead[0][l] - c0[m], d1 = ahead[1][l] - c1[m];
      before[k][l] = w[m];
      x[k][l] = w[m] - amount * (d0 * d0 + d1 * d1);
    }
  }
  threshold(x, before, theta);
  for (int k = 0; k < K; k++) {
    const float *restrict c0 = q->c[k] + n, *restrict c1 = q->c[K + k] + n;
    float *restrict w = q->w[k] + n;
    EACH {
      const int m = l < lanes ? l : 0;
      const float y = x[k][l] - theta[l];
      x[k][l] = y > 0 ? y : 0;
      mean[0][l] += x[k][l] * c0[m];
      mean[1][l] += x[k][l] * c1[m];
    }
    for (int l = 0; l < lanes; l++) w[l] = x[k][l];
  }
  for (int d = 0; d < 2; d++) {
    /* No branch in the loop: p is 0 in the last row, which stands in for the one before the first. */
    const float *px = q->p[1 + 2 * d] + n, *py = q->p[2 + 2 * d] + n, *left = px - 1;
    const float *above = row > 0 ? py - q->stride : q->p[2 + 2 * d] + (q->height - 1) * q->stride + column;
    const float *restrict from = u[d] + n;
    float *restrict to = old[d] + n, shifted[LANES];
    if (column == 0) {
      shifted[0] = 0;
      for (int l = 1; l < lanes; l++) shifted[l] = px[l - 1];
      left = shifted;
    }
#pragma GCC ivdep
    for (int l = 0; l < lanes; l++)
      to[l] = (from[l] + tau * (px[l] - left[l] + py[l] - above[l]) + tau * lambda * mean[d][l]) * scale;
  }
}

static void descend_row(const Problem *q, int row, float *const *u, float *const *old) {
  int column = 0;
  for (; column + LANES <= q->width; column += LANES) descend(q, row, column, LANES, u, old);
  if (column < q->width) descend(q, row, column, q->width - column, u, old);
}

/* After an odd number of steps the chroma is in `old`, and the one before it in `u`. With `turning` a thread takes
 * another part of the rows in every step, so that all it reads was written by another core. */
void iterate(int steps, int single, int turning, int height, int width, size_t stride, const float *a,
             float *const *c, float *const *w, float *const *u, float *const *old, float *const *p, float sigma,
             float tau, float lambda, float rho) {
  const Problem q = {height, width, stride, a, c, w, p, sigma, tau, lambda, rho};
#pragma omp parallel
  {
    int threads = 1, me = 0;
#ifdef _OPENMP
    threads = omp_get_num_threads(), me = omp_get_thread_num();
#endif
    for (int step = 0; step < steps; step++) {
      const long part = turning ? (me + step) % threads : me;
      const int first = (int)(height * part / threads), end = (int)(height * (part + 1) / threads);
      float *const *now = step % 2 ? old : u, *const *next = step % 2 ? u : old;
      /* In one pass a thread's last row goes first: it needs the next thread's first row as it was, which in turn
       * needs its result. */
      const int from = single ? end - 1 : first;
      for (int row = from > first ? from : first; row < end; row++) ascend(&q, row, now, next);
#pragma omp barrier
      for (int row = first; row < end; row++) {
        if (single && row < end - 1) ascend(&q, row, now, next);
        descend_row(&q, row, now, next);
      }
#pragma omp barrier
    }
  }
}

/* What memory gives: two numbers read and one written, all cores. */
void triad(long count, float *x, const float *y, float factor) {
#pragma omp parallel for schedule(static)
  for (long n = 0; n < count; n++) x[n] = y[n] + factor * x[n];
}
